#!/bin/sh
# usage: certificates.sh DIRECTORY. Puts there what the tests of TLS need: NAME.pem, and its key NAME.key.
#   ca, other-ca               certificate authorities
#   server, renewed, expired   of the first one, for 127.0.0.1
#   client, stranger           of the first one and of the other one, for clients
#   locked.key                 server.key behind a password
set -eu
cd "$1"
exec 3>&2 >openssl.log 2>&1
trap '[ $? = 0 ] || cat openssl.log >&3; rm -f openssl.log' EXIT

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" && chmod 600 "$1.key"; }

authority() {
    new_key "$1"
    openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 2 -out "$1.pem"
}

# issue NAME AUTHORITY DAYS USE
issue() {
    new_key "$1"
    printf 'subjectAltName = IP:127.0.0.1, DNS:localhost\nextendedKeyUsage = %s\n' "$4" >"$1.extensions"
    openssl req -new -key "$1.key" -subj "/CN=$1" |
        openssl x509 -req -CA "$2.pem" -CAkey "$2.key" -set_serial "0x$(openssl rand -hex 8)" -days "$3" \
            -extfile "$1.extensions" -out "$1.pem"
    rm "$1.extensions"
}

authority ca
authority other-ca
issue server ca 2 serverAuth
issue renewed ca 2 serverAuth
issue expired ca 0 serverAuth
issue client ca 2 clientAuth
issue stranger other-ca 2 clientAuth
openssl pkcs8 -topk8 -in server.key -passout pass:secret -out locked.key
chmod 600 locked.key
