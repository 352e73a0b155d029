/* config/: YAML text in, settings or complaint lines out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/loader.h"

#define LINES_MAX 128

struct lines {
    unsigned count;
    char *text[LINES_MAX];
};

static void collect(void *user, const char *line) {
    struct lines *lines = user;
    assert_true(lines->count < LINES_MAX);
    assert_null(strchr(line, '\n'));
    lines->text[lines->count++] = strdup(line);
}

static void lines_free(struct lines *lines) {
    for (unsigned i = 0; i < lines->count; i++)
        free(lines->text[i]);
    lines->count = 0;
}

static struct config *config_new(void) {
    struct config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    return config;
}

/* Parses as the file "F", and looks at nothing beside it. */
static status parse_text(struct config *config, const char *yaml, struct lines *lines) {
    return config_parse(config, "F", yaml, strlen(yaml), false, collect, lines);
}

static void parse_good(struct config *config, const char *yaml) {
    struct lines lines = {0};
    status parsed = parse_text(config, yaml, &lines);
    for (unsigned i = 0; i < lines.count; i++)
        print_error("%s\n", lines.text[i]);
    assert_int_equal(parsed, OK);
    assert_int_equal(lines.count, 0);
}

/* Three lines that are good and enough; what is tested begins in line 4. */
#define BASE                      \
    "cluster: shop\nmember: m1\n" \
    "members: {m1: {peer: 10.0.0.1:7432, postgres: 10.0.0.1:5432}}\n"
#define DATA "postgresql: {data_directory: /pg}\n"
/* Four lines; the members begin in line 5. */
#define HEAD "cluster: shop\nmember: m1\n" DATA "members:\n"
#define M1   "  m1: {peer: a:1, postgres: a:2}\n"

struct complaint_row {
    const char *yaml;
    const char *complaints[6];
};

/* clang-format off */
static const struct complaint_row complaint_rows[] = {
    /* YAML itself */
    {"", {"F:1:1: the file is empty: see docs/CONFIGURATION.md for one to begin with"}},
    {"# nothing\n", {"F:1:1: the file is empty: see docs/CONFIGURATION.md for one to begin with"}},
    {"- a\n", {"F:1:1: the file: expected a section of \"key: value\", found a list"}},
    {"shop", {"F:1:1: the file: expected a section of \"key: value\", found a single value"}},
    {"cluster: shop\n\tmember: m1\n",
     {"F:2:1: this is not YAML: found a tab character that violates indentation while scanning a plain scalar: "
      "indent with spaces"}},
    {"cluster: @shop\n",
     {"F:1:10: this is not YAML: found character that cannot start any token while scanning for the next token: "
      "indent with spaces, not tabs, and quote values that begin with a special character"}},
    {"~\n", {"F:1:1: the file is empty: see docs/CONFIGURATION.md for one to begin with"}},
    {"cluster: [shop\nmember: m1\n",
     {"F:2:7: this is not YAML: did not find expected ',' or ']' while parsing a flow sequence: "
      "close [ with ], put commas between the entries, and quote [fd00::1]:7432"}},
    {"cluster: shop: m1\n",
     {"F:1:14: this is not YAML: mapping values are not allowed in this context: "
      "write one \"key: value\" on a line, and quote values that contain \": \""}},
    {"listen: *\n",
     {"F:1:10: this is not YAML: did not find expected alphabetic or numeric character while scanning an alias: "
      "quote a value that begins with * or &"}},
    {"cluster: \"\xff\"\n", {"F:1:1: this is not YAML: invalid leading UTF-8 octet: save the file as UTF-8"}},
    {BASE DATA "---\nlease: 3s\n",
     {"F:5:1: a second YAML document begins here: write all settings in one, without \"---\""}},
    /* keys */
    {BASE DATA "durabilty: strict\n", {"F:5:1: unknown setting \"durabilty\": did you mean \"durability\"?"}},
    {BASE DATA "probe: {intervall: 2s}\n", {"F:5:9: unknown setting \"intervall\": did you mean \"interval\"?"}},
    {BASE "postgresql:\n  data_directory: /pg\n  bin_dir: /usr/bin\n",
     {"F:6:3: unknown setting \"bin_dir\": write one of data_directory, bin_directory, socket_directory, "
      "listen_addresses, superuser, slot_keep, diverged_keep, parameters, primary_parameters, standby_parameters, hba"}},
    {BASE DATA "bin_directory: /usr/bin\n",
     {"F:5:1: unknown setting \"bin_directory\": did you mean \"bin_directory\" in the section \"postgresql\"?"}},
    {BASE DATA "probe: {lease: 2s}\n", {"F:5:9: unknown setting \"lease\": did you mean \"lease\" at the top level?"}},
    {BASE DATA "probe.interval: 2s\n", 
     {"F:5:1: unknown setting \"probe.interval\": did you mean \"interval\" in the section \"probe\"?"}},
    {BASE DATA "xyzzy: 1\n",
     {"F:5:1: unknown setting \"xyzzy\": write one of cluster, member, members, data_directory, runtime_directory, http, "
      "postgresql, replication, durability, lease, max_loss, probe, watchdog, watchdog_device, publish, pgbouncer, dns"}},
    /* DNS */
    {BASE DATA "dns: {zone: db.example.org, listen: [10.0.0.1, nobody]}\n",
     {"F:5:48: dns.listen: expected addresses such as [10.0.0.1, \"::1\"], found \"nobody\""}},
    {BASE DATA "dns: {listen: 10.0.0.1}\n",
     {"F:5:15: dns.listen needs dns.zone: write that, too, or remove this"}},
    {BASE DATA "dns: {zone: \"db example\"}\n",
     {"F:5:13: dns.zone: expected a domain such as db.example.org, found \"db example\""}},
    {BASE DATA "dns: {zone: a.example, ttl: 10ms}\n", {"F:5:29: dns.ttl: must be from 1s to 60min, found \"10ms\""}},
    {BASE DATA "dns: {zone: a.example, update: {server: \"10.0.0.5:53\"}}\n",
     {"F:5:41: dns.update.server needs dns.update.key_file: write that, too, or remove this",
      "F:5:41: dns.update.server needs dns.update.key_name: write that, too, or remove this"}},
    {BASE DATA "dns: {zone: a.example, update: {server: \"ns:53\", key_name: k, key_file: /k, zone: xample}}\n",
     {"F:5:41: dns.update.server: expected an address such as 10.0.0.53:53, as a name would need DNS first",
      "F:5:83: dns.update.zone: dns.zone (a.example) does not lie in it"}},
    {BASE DATA "dns: {zone: a.example, update: {algorithm: md5}}\n",
     {"F:5:44: dns.update.algorithm: expected hmac-sha256 or hmac-sha512, found \"md5\""}},
    {HEAD "  m1: {peer: a:1, postgres: db1.Example.org:2}\n" "dns: {zone: example.org.}\n",
     {"F:5:29: members.m1.postgres: lies in dns.zone, whose names are made from this: write its address, or a name "
      "from elsewhere"}},
    {BASE DATA "publish: {env_file: /e, file_access: {/e: 0100, x: 0600, /f: 0600}}\n",
     {"F:5:43: publish.file_access: expected a mode, and perhaps an owner, such as 0640 or \"0640 postgres:pgbouncer\", "
      "found \"0100\"",
      "F:5:49: publish.file_access: expected the absolute path of a published file, found \"x\""}},
    {BASE DATA "publish: {env_file: /e, file_access: {/e: 0600, /f: 0600}}\n",
     {"F:5:38: publish.file_access: \"/f\" is none of the published files: write the path of one"}},
    {BASE DATA "http: {certificate_file: /c.pem}\n",
     {"F:5:26: http.certificate_file needs http.key_file: write that, too, or remove this"}},
    {BASE DATA "http: {key_file: /c.key, client_ca_file: /a.pem}\n",
     {"F:5:18: http.key_file needs http.certificate_file: write that, too, or remove this",
      "F:5:42: http.client_ca_file needs http.certificate_file: write that, too, or remove this"}},
    {BASE DATA "http: {key_file: -----BEGIN}\n",
     {"F:5:18: http.key_file: expected the absolute path of a file that holds the secret, such as "
      "/etc/ttorch/replication.password, found something else (not shown)"}},
    {BASE DATA "[a]: 1\n", {"F:5:1: a key: expected a name, found a list"}},
    {BASE DATA "\"a\\nb\\0\": 1\n", {"F:5:1: a key: expected a name, found a text with a zero byte"}},
    {BASE DATA "\"a\\n\\e[31m\": 1\n",
     {"F:5:1: unknown setting \"a??[31m\": write one of cluster, member, members, data_directory, runtime_directory, "
      "http, postgresql, replication, durability, lease, max_loss, probe, watchdog, watchdog_device, publish, pgbouncer, dns"}},
    {BASE DATA "lease: 2s\nlease: 3s\n", {"F:6:1: \"lease\" is here twice, first in line 5: remove one of them"}},
    {BASE DATA "http: {port: 1, port: 1}\n", {"F:5:17: \"port\" is here twice, first in line 5: remove one of them"}},
    {BASE DATA "replication: {password: hunter2}\n",
     {"F:5:15: passwords do not belong into this file: put it into one of its own, of mode 0600, and name that with "
      "\"replication: {password_file: /etc/ttorch/replication.password}\""}},
    {BASE DATA "replication_password: hunter2\n",
     {"F:5:1: passwords do not belong into this file: put it into one of its own, of mode 0600, and name that with "
      "\"replication: {password_file: /etc/ttorch/replication.password}\""}},
    /* missing */
    {"lease: 2s\n",
     {"F:1:1: cluster is missing: write a name of at most 31 small letters, digits and \"-\" that begins with a letter, "
      "such as m1",
      "F:1:1: member is missing: write a name of at most 31 small letters, digits and \"-\" that begins with a letter, "
      "such as m1",
      "F:1:1: members is missing: write \"members:\" and for each member a line such as "
      "m1: {peer: 10.0.0.1:7432, postgres: 10.0.0.1:5432}"}},
    {BASE, {"F:1:1: postgresql.data_directory is missing: write an absolute path such as /var/lib/ttorch"}},
    {HEAD "  m1: {postgres: a:2}\n  m2: {peer: b:1}\n",
     {"F:5:7: members.m1.peer is missing: write host:port such as 10.0.0.1:7432 or, with the quotes, "
      "\"[fd00::3]:7432\"",
      "F:6:7: members.m2.postgres is missing: write host:port such as 10.0.0.1:7432 or, with the quotes, "
      "\"[fd00::3]:7432\""}},
    {BASE DATA "cluster:\n", {"F:5:1: \"cluster\" is here twice, first in line 1: remove one of them"}},
    {BASE DATA "lease:\nhttp:\n", {"F:5:7: lease: expected a duration such as 500ms, 2s or 1min, found nothing"}},
    /* members */
    {HEAD "", {"F:4:9: members is missing: write \"members:\" and for each member a line such as "
               "m1: {peer: 10.0.0.1:7432, postgres: 10.0.0.1:5432}"}},
    {HEAD "  - m1\n", {"F:5:3: members: expected a section of \"key: value\", found a list"}},
    {HEAD M1 "  m1: {peer: b:1, postgres: b:2}\n",
     {"F:6:3: \"m1\" is here twice, first in line 5: remove one of them"}},
    {HEAD "  m2: {peer: a:1, postgres: a:2}\n  m10: {peer: b:1, postgres: b:2}\n",
     {"F:2:9: member: \"m1\" is not in the list of members: write one of m2, m10"}},
    {HEAD "  M1: {peer: a:1, postgres: a:2}\n" M1,
     {"F:5:3: members: expected a name of at most 31 small letters, digits and \"-\" that begins with a letter, such as "
      "m1, found \"M1\""}},
    {HEAD M1 "  m2: b:1\n", {"F:6:7: members.m2: expected a section of \"key: value\", found a single value"}},
    {HEAD M1 "  m2: {peer: b:1, witness: true, postgres: b:2}\n",
     {"F:6:34: members.m2.postgres: a witness has no PostgreSQL: remove this, or \"witness: true\""}},
    {HEAD "  m1: {peer: a:1, witness: yes}\n",
     {"F:5:3: members: at least one must hold data and vote: remove \"witness: true\" or \"observer: true\" from one"}},
    {HEAD "  m1: {peer: a:1, postgres: a:2, observer: yes}\n  m2: {peer: b:1, witness: true}\n",
     {"F:5:3: members: at least one must hold data and vote: remove \"witness: true\" or \"observer: true\" from one"}},
    {HEAD M1 "  m2: {peer: b:1, witness: true, observer: true}\n",
     {"F:6:34: members.m2.observer: a witness votes, and an observer does not: remove one of the two"}},
    {HEAD M1 "  m2: {peer: b:1, observer: true, priority: 7}\n",
     {"F:6:35: members.m2.priority: an observer never becomes primary: remove this, or \"observer: true\""}},
    {HEAD M1 "  m2: {peer: b:1, observer: maybe}\n",
     {"F:6:29: members.m2.observer: expected true or false, found \"maybe\""}},
    {HEAD M1 "  m2: {peer: b:1, witness: maybe}\n",
     {"F:6:28: members.m2.witness: expected true or false, found \"maybe\""}},
    {HEAD M1 "  m2: {peer: a:1, postgres: A:2}\n",
     {"F:6:14: members.m2.peer: members.m1.peer has this address, too, in line 5: write another port or host",
      "F:6:29: members.m2.postgres: members.m1.postgres has this address, too, in line 5: write another port or host"}},
    {HEAD "  m1: {peer: a:1, postgres: a:1}\n",
     {"F:5:29: members.m1.postgres: members.m1.peer has this address, too, in line 5: write another port or host"}},
    {HEAD M1 "  m2: {peer: b:1, postgres: b:2, priority: 1001}\n",
     {"F:6:44: members.m2.priority: must be from 0 to 1000, found \"1001\""}},
    /* addresses */
    {HEAD "  m1: {peer: \"fd00::3:7432\", postgres: a:2}\n",
     {"F:5:14: members.m1.peer: an IPv6 address needs brackets, and these quotes: write \"[fd00::3]:7432\""}},
    {HEAD "  m1: {peer: [fd00], postgres: a:2}\n",
     {"F:5:14: members.m1.peer: expected host:port such as 10.0.0.1:7432 or, with the quotes, \"[fd00::3]:7432\", found "
      "a list"}},
    {HEAD "  m1: {peer: 10.0.0.1, postgres: \"[10.0.0.1]:2\"}\n",
     {"F:5:14: members.m1.peer: expected host:port such as 10.0.0.1:7432 or, with the quotes, \"[fd00::3]:7432\", found "
      "\"10.0.0.1\"",
      "F:5:34: members.m1.postgres: expected host:port such as 10.0.0.1:7432 or, with the quotes, \"[fd00::3]:7432\", "
      "found \"[10.0.0.1]:2\""}},
    {HEAD "  m1: {peer: 10.0.0.300:1, postgres: a b:2}\n",
     {"F:5:14: members.m1.peer: expected host:port such as 10.0.0.1:7432 or, with the quotes, \"[fd00::3]:7432\", found "
      "\"10.0.0.300:1\"",
      "F:5:38: members.m1.postgres: expected host:port such as 10.0.0.1:7432 or, with the quotes, \"[fd00::3]:7432\", "
      "found \"a b:2\""}},
    {HEAD "  m1: {peer: a:0, postgres: a:65536}\n",
     {"F:5:14: members.m1.peer: the port must be a number from 1 to 65535, found \"0\"",
      "F:5:29: members.m1.postgres: the port must be a number from 1 to 65535, found \"65536\""}},
    {HEAD "  m1: {peer: 0.0.0.0:1, postgres: \"[::]:2\"}\n",
     {"F:5:14: members.m1.peer: 0.0.0.0 means every address: write one at which the other members reach it",
      "F:5:35: members.m1.postgres: :: means every address: write one at which the other members reach it"}},
    {BASE DATA "http: {listen: \"a b\"}\n",
     {"F:5:16: http.listen: expected an address such as 10.0.0.1 or 0.0.0.0, found \"a b\""}},
    /* types and bounds */
    {BASE DATA "cluster_name: x\nlease: [2s]\n",
     {"F:5:1: unknown setting \"cluster_name\": write one of cluster, member, members, data_directory, "
      "runtime_directory, http, postgresql, replication, durability, lease, max_loss, probe, watchdog, watchdog_device, publish, pgbouncer, dns",
      "F:6:8: lease: expected a duration such as 500ms, 2s or 1min, found a list"}},
    {BASE DATA "lease: 2\n", {"F:5:8: lease: expected a duration such as 500ms, 2s or 1min, found \"2\""}},
    {BASE DATA "lease: -2s\n", {"F:5:8: lease: expected a duration such as 500ms, 2s or 1min, found \"-2s\""}},
    {BASE DATA "lease: 499ms\n", {"F:5:8: lease: must be from 500ms to 1min, found \"499ms\""}},
    {BASE DATA "lease: 2min\n", {"F:5:8: lease: must be from 500ms to 1min, found \"2min\""}},
    {BASE DATA "lease: 99999999999999999999s\n",
     {"F:5:8: lease: must be from 500ms to 1min, found \"99999999999999999999s\""}},
    {BASE DATA "lease: 18446744073709551615min\n",
     {"F:5:8: lease: must be from 500ms to 1min, found \"18446744073709551615min\""}},
    {BASE DATA "max_loss: 10Gb\n", {"F:5:11: max_loss: expected a size such as 512kB, 16MB or 10GB, found \"10Gb\""}},
    {BASE DATA "max_loss: 2TB\n", {"F:5:11: max_loss: must be from 0 to 1TB, found \"2TB\""}},
    {BASE "postgresql: {data_directory: /pg, slot_keep: 1MB}\n",
     {"F:4:46: postgresql.slot_keep: must be from 64MB to 1024TB, found \"1MB\""}},
    {BASE DATA "http: {port: 0}\n", {"F:5:14: http.port: must be from 1 to 65535, found \"0\""}},
    {BASE DATA "http: {port: http}\n", {"F:5:14: http.port: expected a whole number, found \"http\""}},
    {BASE DATA "http: 8008\n", {"F:5:7: http: expected a section of \"key: value\", found a single value"}},
    {BASE DATA "durability: sync\n", {"F:5:13: durability: expected quorum, strict or async, found \"sync\""}},
    {BASE DATA "data_directory: var/lib\n",
     {"F:5:17: data_directory: expected an absolute path such as /var/lib/ttorch, found \"var/lib\""}},
    {BASE DATA "data_directory: /12345678901234567890123456789012345678901234567890123456789012345678901234567890\n",
     {"F:5:17: data_directory: must have 1 to 80 bytes, has 81"}},
    {BASE DATA "replication: {user: \"\"}\n", {"F:5:21: replication.user: must have 1 to 63 bytes, has 0"}},
    {BASE DATA "replication: {user: \"a\\nb\"}\n",
     {"F:5:21: replication.user: expected one line without control characters"}},
    {BASE DATA "replication: {user: \"a\\0b\"}\n",
     {"F:5:21: replication.user: expected text, found a text with a zero byte"}},
    {BASE DATA "replication: {password_file: hunter2}\n",
     {"F:5:30: replication.password_file: expected the absolute path of a file that holds the secret, such as "
      "/etc/ttorch/replication.password, found something else (not shown)"}},
    {BASE DATA "cluster: x\xc3\xa9\nlease: \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9x\xc3\xa9\xc3\xa9\n",
     {"F:5:1: \"cluster\" is here twice, first in line 1: remove one of them",
      "F:6:8: lease: expected a duration such as 500ms, 2s or 1min, found "
      "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
      "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
      "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9x...\""}},
    /* settings that hang together */
    {BASE DATA "probe: {interval: 3s}\n",
     {"F:5:19: probe.timeout (3000 ms) must be longer than probe.interval (3000 ms)"}},
    {BASE DATA "probe: {interval: 3s, timeout: 2s}\n",
     {"F:5:32: probe.timeout (2000 ms) must be longer than probe.interval (3000 ms)"}},
    {BASE DATA "probe: {interval: 3s, timeout: x}\n",
     {"F:5:32: probe.timeout: expected a duration such as 500ms, 2s or 1min, found \"x\""}},
    {BASE DATA "data_directory: /pg/ttorch\n",
     {"F:4:30: postgresql.data_directory: ttorch's own data_directory (/pg/ttorch) must not lie in it: write another "
      "for one of them"}},
    {BASE DATA "data_directory: /pg/\n",
     {"F:4:30: postgresql.data_directory: ttorch's own data_directory (/pg) must not lie in it: write another for one of "
      "them"}},
    /* lists */
    {BASE "postgresql:\n  data_directory: /pg\n  parameters: [a]\n  hba: host\n",
     {"F:6:15: postgresql.parameters: expected parameters of PostgreSQL such as {work_mem: 16MB}, found a list",
      "F:7:8: postgresql.hba: expected a list of lines such as [\"host all app 10.0.0.0/8 scram-sha-256\"], found a single "
      "value"}},
    {BASE "postgresql:\n  data_directory: /pg\n  parameters:\n    work_mem:\n    Work_Mem: 1MB\n    work_mem: 2MB\n    a b: 1\n"
     "    1a: \"\"\n    d: [1]\n",
     {"F:7:14: postgresql.parameters: expected a value for each parameter (\"\" if it is empty), found nothing",
      "F:9:5: postgresql.parameters: work_mem is here twice: remove one of them",
      "F:10:5: postgresql.parameters: expected the name of a parameter such as work_mem, found \"a b\"",
      "F:11:5: postgresql.parameters: expected the name of a parameter such as work_mem, found \"1a\"",
      "F:12:8: postgresql.parameters: expected a value for each parameter (\"\" if it is empty), found a list"}},
    {BASE "postgresql:\n  data_directory: /pg\n  parameters: {a: \"1\\n\"}\n",
     {"F:6:19: postgresql.parameters: a must be one line of at most 255 bytes"}},
    {BASE "postgresql:\n  data_directory: /pg\n  hba: [\"all all trust\", \"host a\\nb\", host]\n",
     {"F:6:9: postgresql.hba: a line begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc, and a "
      "space; found \"all all trust\"",
      "F:6:26: postgresql.hba: each must be one line of at most 255 bytes",
      "F:6:39: postgresql.hba: a line begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc, and a "
      "space; found \"host\""}},
    /* publishing */
    {BASE DATA "publish:\n  file_mode: 0648\n  env_primary: A#B\n  env_replica: REPLICA\n  env_pool: 1A\n",
     {"F:6:14: publish.file_mode: expected a file mode such as 0640, found \"0648\"",
      "F:7:16: publish.env_primary: expected a name of 1 to 63 letters, digits and \"_\", without \"#\"",
      "F:8:16: publish.env_replica: expected a name of 1 to 63 letters, digits and \"_\", with one \"#\"",
      "F:9:13: publish.env_pool: expected the name of a variable such as DATABASE_URL, found \"1A\""}},
    {BASE DATA "publish: {options: \"sslmode\", health: {lag_warning: 0}}\n",
     {"F:5:20: publish.options: expected parameters of libpq such as connect_timeout=3 sslmode=require, but no password",
      "F:5:53: publish.health.lag_warning: must be from 1ms to 1440min, found \"0\""}},
    {BASE DATA "publish: {options: \"sslmode=require password=x\"}\n",
     {"F:5:20: publish.options: expected parameters of libpq such as connect_timeout=3 sslmode=require, but no password"}},
    {BASE DATA "publish: {templates: [x]}\n",
     {"F:5:22: publish.templates: expected a file to make and its template, such as {/run/ttorch/primary.conf: "
      "/etc/ttorch/primary.conf.in}, found a list"}},
    {BASE DATA "publish:\n  templates:\n    a: /b\n    /a: b\n    /c: /c\n    /d: [/e]\n",
     {"F:7:5: publish.templates: expected the absolute path of the file to make, found \"a\"",
      "F:8:9: publish.templates: expected the absolute path of a template, found \"b\"",
      "F:9:9: publish.templates: expected the absolute path of a template, found \"/c\"",
      "F:10:9: publish.templates: expected the path of its template, found a list"}},
    {BASE DATA "pgbouncer:\n  poolers:\n    a: 10.0.0.1:6432\n    B: 10.0.0.1:6432\n    c: app:6432\n    d: /run\n"
               "    e: /run:6432\n",
     {"F:8:5: pgbouncer.poolers: expected a name of at most 31 small letters, digits and \"-\" that begins with a letter, "
      "such as m1, found \"B\"",
      "F:9:8: pgbouncer.poolers: expected an IP address and a port such as 10.0.1.1:6432, or the directory of a socket and "
      "a port such as /run/postgresql:6432, found \"app:6432\"",
      "F:10:8: pgbouncer.poolers: expected an IP address and a port such as 10.0.1.1:6432, or the directory of a socket "
      "and a port such as /run/postgresql:6432, found \"/run\""}},
    {BASE DATA "pgbouncer: {poolers: 10.0.0.1:6432, databases: \"a;b\"}\n",
     {"F:5:22: pgbouncer.poolers: expected a name and an address such as {app1: 10.0.1.1:6432, app2: \"[fd00::2]:6432\"} "
      "or the directory of a socket, as {here: /run/postgresql:6432}, found a single value",
      "F:5:48: pgbouncer.databases: expected names of databases such as [shop, billing], found \"a;b\""}},
    {BASE DATA "pgbouncer: {pause: 5s, hold: 5s}\n",
     {"F:5:30: pgbouncer.hold (5000 ms) must be longer than pgbouncer.pause (5000 ms)"}},
};

/* {parameter, its value, what is said instead} */
static const char *const managed_rows[][3] = {
    {"primary_conninfo", "host=x password=hunter2", "ttorch writes it: remove it"},
    {"primary_slot_name", "x", "ttorch writes it: remove it"},
    {"synchronous_standby_names", "'*'", "ttorch writes it from \"durability\": remove it"},
    {"Synchronous_Commit", "off",
     "ttorch keeps it on: choose \"durability\", or set it in a session or for a role"},
    {"restore_command", "cp", "ttorch writes it: remove it"},
    {"recovery_target", "immediate", "it would stop a standby short of its primary: remove it"},
    {"recovery_target_time", "x", "it would stop a standby short of its primary: remove it"},
    {"promote_trigger_file", "x", "only ttorch may promote: remove it"},
    {"restart_after_crash", "on", "ttorch keeps it off, so that a crashed primary is a failover: remove it"},
    {"wal_level", "minimal", "no standby can follow that: write replica or logical"},
    {"hot_standby", "off", "ttorch keeps it on: remove it"},
    {"listen_addresses", "'*'", "write \"postgresql.listen_addresses\" instead"},
    {"port", "5433", "the port stands in the list of members, at \"postgres\": remove it"},
    {"unix_socket_directories", "/tmp", "write \"postgresql.socket_directory\" instead"},
    {"max_slot_wal_keep_size", "1GB", "write \"postgresql.slot_keep\" instead"},
    {"data_directory", "/x", "write \"postgresql.data_directory\" instead"},
    {"hba_file", "/x", "ttorch edits pg_hba.conf in the data directory: write \"postgresql.hba\" instead"},
    {"config_file", "/x", "ttorch's settings are included by postgresql.conf in the data directory: remove it"},
    {"include_dir", "x", "write the parameters themselves"},
};
/* clang-format on */

/* True if exactly these are the complaints; else prints those that there are. */
static bool complaints_are(const char *yaml, const char *const *expected, unsigned expected_max) {
    struct config *config = config_new();
    struct lines lines = {0};
    unsigned count = 0;
    config->lease_ms = 12345;
    assert_int_equal(parse_text(config, yaml, &lines), FAILED);
    assert_int_equal(config->lease_ms, 12345); /* untouched */
    while (count < expected_max && expected[count] != NULL)
        count++;
    bool equal = lines.count == count;
    for (unsigned i = 0; i < count && equal; i++)
        equal = strcmp(lines.text[i], expected[i]) == 0;
    if (!equal)
        print_error("this file:\n%s", yaml);
    for (unsigned i = 0; i < lines.count && !equal; i++)
        print_error("  %s\n", lines.text[i]);
    lines_free(&lines);
    free(config);
    return equal;
}

static void test_complaints(void **state) {
    (void)state;
    unsigned different = 0;
    for (size_t i = 0; i < sizeof complaint_rows / sizeof complaint_rows[0]; i++)
        different += !complaints_are(complaint_rows[i].yaml, complaint_rows[i].complaints, 6);
    assert_int_equal(different, 0);
}

static void test_managed_parameters(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof managed_rows / sizeof managed_rows[0]; i++) {
        char yaml[512], line[512];
        const char *expected[] = {line};
        snprintf(yaml, sizeof yaml, BASE "postgresql:\n  data_directory: /pg\n  standby_parameters:\n    %s: \"%s\"\n",
                 managed_rows[i][0], managed_rows[i][1]);
        snprintf(line, sizeof line, "F:7:5: postgresql.standby_parameters: %s is not set here: %s", managed_rows[i][0],
                 managed_rows[i][2]);
        assert_true(complaints_are(yaml, expected, 1));
    }
}

/* ---- good files ---- */

static void test_defaults(void **state) {
    (void)state;
    struct config *config = config_new();
    parse_good(config, BASE DATA);
    assert_string_equal(config->file, "F");
    assert_string_equal(config->cluster, "shop");
    assert_string_equal(config->member, "m1");
    assert_int_equal(config->self, 0);
    assert_int_equal(config->members_count, 1);
    assert_false(config->members[0].witness);
    assert_int_equal(config->members[0].priority, 100);
    assert_string_equal(config->data_directory, "/var/lib/ttorch");
    assert_string_equal(config->runtime_directory, "/var/lib/ttorch");
    assert_string_equal(config->http_listen, "");
    assert_string_equal(config->http_certificate_file, "");
    assert_string_equal(config->http_key_file, "");
    assert_int_equal(config->http_port, 8008);
    assert_string_equal(config->postgresql.bin_directory, ""); /* not looked for: see test_programs */
    assert_string_equal(config->postgresql.data_directory, "/pg");
    assert_string_equal(config->postgresql.socket_directory, "/var/run/postgresql");
    assert_string_equal(config->postgresql.listen_addresses, "*");
    assert_int_equal(config->postgresql.port, 5432);
    assert_string_equal(config->postgresql.superuser, "postgres");
    assert_int_equal(config->postgresql.slot_keep_bytes, 10ull << 30);
    assert_int_equal(config->postgresql.diverged_keep_bytes, 1ull << 30);
    assert_int_equal(config->postgresql.all.count + config->postgresql.primary.count + config->postgresql.standby.count,
                     0);
    assert_int_equal(config->postgresql.hba_count, 0);
    assert_string_equal(config->replication.user, "ttorch");
    assert_string_equal(config->replication.password_file, "/etc/ttorch/replication.password");
    assert_int_equal(config->durability, CONFIG_QUORUM);
    assert_int_equal(config->lease_ms, 2000);
    assert_int_equal(config->max_loss_bytes, 16 << 20);
    assert_int_equal(config->probe_interval_ms, 1000);
    assert_int_equal(config->probe_timeout_ms, 3000);
    assert_string_equal(config->publish.topology_file, "/var/lib/ttorch/topology.json");
    assert_string_equal(config->publish.env_file, "");
    assert_string_equal(config->publish.env_primary, "PRODUCTION_DATABASE_URL");
    assert_int_equal(config->publish.file_mode, 0644);
    free(config);
}

#define FULL                                                                                                    \
    "cluster: shop\nmember: m10\nmembers:\n"                                                                    \
    "  m10: {peer: 10.0.0.10:7432, postgres: pg10.example:6432, priority: 0}\n"                                 \
    "  m2: {peer: 10.0.0.2:7432, postgres: 10.0.0.2:5432, witness: false}\n"                                    \
    "  m3:\n    peer: \"[fd00::3]:7432\"\n    witness: true\n"                                                  \
    "data_directory: /srv/ttorch/\nruntime_directory: /run/ttorch\nhttp: {listen: \"::\", port: 80,\n"          \
    "  certificate_file: /c.pem, key_file: /c.key, client_ca_file: /a.pem}\n"                                   \
    "postgresql:\n  bin_directory: /usr/lib/postgresql/15/bin\n  data_directory: /var/lib/postgresql/15/shop\n" \
    "  socket_directory: /tmp\n  listen_addresses: \"10.0.0.1, ::1\"\n  superuser: admin\n  slot_keep: 64MB\n"  \
    "  parameters: {work_mem: 16MB, Shared_Buffers: 1GB, wal_level: logical, log_line_prefix: \"%m 'x'\"}\n"    \
    "  primary_parameters: {}\n  standby_parameters: {hot_standby_feedback: on}\n"                              \
    "  hba: [\"host all app 10.0.0.0/8 scram-sha-256\", \"local\tall all peer\"]\n"                             \
    "replication: {user: repl, password_file: /x}\ndurability: async\nlease: 1500 ms\nmax_loss: 0\n"            \
    "probe: {interval: 100ms, timeout: 1min}\n"                                                                 \
    "publish:\n  topology_file: \"\"\n  freshness_file: /f\n  env_file: /e\n  env_primary: DATABASE_URL\n"      \
    "  env_replica: R#\n  env_pool: POOL\n  service_file: /s\n  pgbouncer_file: /b\n"                           \
    "  templates: {/t: /t.in, /u: /u.in}\n  file_mode: 0640\n  file_owner: app:app\n"                           \
    "  file_access: {/e: 0600, /t: \"0640 app\"}\n  database: shop\n"                                           \
    "  user: web\n  options: sslmode=require  connect_timeout=1\n  libpq: 16\n  hook: /h\n  hook_timeout: 1s\n" \
    "  health: {lag_warning: 1s, lag_critical: 2s, response_warning: 3ms, response_critical: 4ms}\n"            \
    "pgbouncer: {poolers: {b: \"[fd00::6]:6432\", a: /run/p:6433}, user: admin, password_file: /p,\n"           \
    "  databases: [shop, shop2], pause: 1s, hold: 1min}\n"                                                      \
    "dns: {zone: db.example.org., listen: [10.0.0.1, \"::1\"], port: 5353, ns: ns1.example.org,\n"              \
    "  ttl: 2s, max_lag: 1MB, rate_limit: 0, update: {server: \"[fd00::5]:53\",\n"                              \
    "  zone: example.org, key_name: k.example, key_file: /k, algorithm: hmac-sha512, ttl: 5s}}\n"

static void test_every_setting(void **state) {
    (void)state;
    struct config *config = config_new();
    parse_good(config, FULL);
    assert_int_equal(config->members_count, 3);
    assert_string_equal(config->members[0].name, "m2"); /* in the order of names, not of the file */
    assert_string_equal(config->members[1].name, "m3");
    assert_string_equal(config->members[2].name, "m10");
    assert_int_equal(config->self, 2);
    assert_string_equal(config->members[1].peer_host, "fd00::3");
    assert_int_equal(config->members[1].peer_port, 7432);
    assert_true(config->members[1].witness);
    assert_string_equal(config->members[1].postgres_host, "");
    assert_string_equal(config->members[2].postgres_host, "pg10.example");
    assert_int_equal(config->postgresql.port, 6432);
    assert_int_equal(config->members[2].priority, 0);
    assert_string_equal(config->data_directory, "/srv/ttorch");
    assert_string_equal(config->runtime_directory, "/run/ttorch");
    assert_string_equal(config->http_listen, "::");
    assert_string_equal(config->http_certificate_file, "/c.pem");
    assert_string_equal(config->http_key_file, "/c.key");
    assert_string_equal(config->http_client_ca_file, "/a.pem");
    assert_int_equal(config->http_port, 80);
    assert_string_equal(config->postgresql.bin_directory, "/usr/lib/postgresql/15/bin");
    assert_string_equal(config->postgresql.listen_addresses, "10.0.0.1, ::1");
    assert_string_equal(config->postgresql.socket_directory, "/tmp");
    assert_string_equal(config->postgresql.superuser, "admin");
    assert_int_equal(config->postgresql.slot_keep_bytes, 64 << 20);
    assert_int_equal(config->postgresql.all.count, 4);
    assert_string_equal(config->postgresql.all.list[0].name, "log_line_prefix");
    assert_string_equal(config->postgresql.all.list[0].value, "%m 'x'");
    assert_string_equal(config->postgresql.all.list[3].name, "work_mem");
    assert_int_equal(config->postgresql.primary.count, 0);
    assert_string_equal(config->postgresql.standby.list[0].value, "on");
    assert_int_equal(config->postgresql.hba_count, 2);
    assert_string_equal(config->postgresql.hba[1], "local\tall all peer");
    assert_string_equal(config->replication.user, "repl");
    assert_string_equal(config->replication.password_file, "/x");
    assert_int_equal(config->durability, CONFIG_ASYNC);
    assert_int_equal(config->lease_ms, 1500);
    assert_int_equal(config->max_loss_bytes, 0);
    assert_int_equal(config->probe_interval_ms, 100);
    assert_int_equal(config->probe_timeout_ms, 60000);
    assert_string_equal(config->publish.topology_file, "");
    assert_string_equal(config->publish.freshness_file, "/f");
    assert_string_equal(config->publish.env_replica, "R#");
    assert_int_equal(config->publish.templates.count, 2);
    assert_string_equal(config->publish.templates.list[1].target, "/u");
    assert_string_equal(config->publish.templates.list[1].source, "/u.in");
    assert_int_equal(config->publish.file_mode, 0640);
    assert_int_equal(config->publish.file_access.count, 2);
    assert_string_equal(config->publish.file_access.list[1].path, "/t");
    assert_int_equal(config->publish.file_access.list[1].mode, 0640);
    assert_string_equal(config->publish.file_access.list[1].owner, "app");
    assert_string_equal(config->publish.file_owner, "app:app");
    assert_string_equal(config->publish.options, "sslmode=require  connect_timeout=1");
    assert_int_equal(config->publish.libpq, 16);
    assert_int_equal(config->publish.hook_timeout_ms, 1000);
    assert_int_equal(config->publish.health.lag_critical_ms, 2000);
    assert_int_equal(config->publish.health.response_critical_ms, 4);
    assert_int_equal(config->pgbouncer.poolers.count, 2);
    assert_string_equal(config->pgbouncer.poolers.list[0].name, "b");
    assert_string_equal(config->pgbouncer.poolers.list[0].host, "fd00::6");
    assert_string_equal(config->pgbouncer.poolers.list[1].host, "/run/p");
    assert_int_equal(config->pgbouncer.poolers.list[1].port, 6433);
    assert_string_equal(config->pgbouncer.user, "admin");
    assert_string_equal(config->pgbouncer.password_file, "/p");
    assert_string_equal(config->pgbouncer.databases, "shop, shop2");
    assert_int_equal(config->pgbouncer.pause_ms, 1000);
    assert_int_equal(config->pgbouncer.hold_ms, 60000);
    assert_string_equal(config->dns.zone, "db.example.org.");
    assert_string_equal(config->dns.listen, "10.0.0.1, ::1");
    assert_int_equal(config->dns.port, 5353);
    assert_string_equal(config->dns.ns, "ns1.example.org");
    assert_int_equal(config->dns.ttl_ms, 2000);
    assert_int_equal(config->dns.max_lag_bytes, 1 << 20);
    assert_int_equal(config->dns.rate_limit, 0);
    assert_string_equal(config->dns.update.server_host, "fd00::5");
    assert_int_equal(config->dns.update.server_port, 53);
    assert_string_equal(config->dns.update.zone, "example.org");
    assert_string_equal(config->dns.update.key_name, "k.example");
    assert_string_equal(config->dns.update.key_file, "/k");
    assert_int_equal(config->dns.update.algorithm, CONFIG_HMAC_SHA512);
    assert_int_equal(config->dns.update.ttl_ms, 5000);
    char path[200];
    config_socket_path(config, path, sizeof path);
    assert_string_equal(path, "/run/ttorch/ttorchd.sock");
    free(config);
}

static void test_witness_needs_little(void **state) {
    (void)state;
    struct config *config = config_new();
    parse_good(config, "cluster: shop\nmember: w\nmembers:\n" M1 "  w: {peer: w:1, witness: true}\n");
    assert_string_equal(config->postgresql.data_directory, "");
    assert_int_equal(config->postgresql.port, 0);
    free(config);
}

static void test_observers(void **state) {
    (void)state;
    struct config *config = config_new();
    parse_good(config, "cluster: shop\nmember: m4\nmembers:\n" M1
                       "  m4: {peer: d:1, observer: true}\n  m5: {peer: e:1, postgres: e:2, observer: true}\n");
    assert_true(config_member_has_data(&config->members[0]));
    assert_true(config->members[1].observer && !config_member_has_data(&config->members[1]));
    assert_true(config->members[2].observer && config_member_has_data(&config->members[2]));
    assert_string_equal(config->postgresql.data_directory, "");
    free(config);
    const char *expected[] = {
        "F:1:1: postgresql.data_directory is missing: write an absolute path such as /var/lib/ttorch"};
    assert_true(complaints_are(
        "cluster: shop\nmember: m5\nmembers:\n" M1 "  m5: {peer: e:1, postgres: e:2, observer: true}\n", expected, 1));
}

static void test_anchors_and_aliases(void **state) {
    (void)state;
    struct config *config = config_new();
    parse_good(config, BASE DATA "lease: &l 3s\nprobe: {interval: *l, timeout: 4s}\n");
    assert_int_equal(config->probe_interval_ms, 3000);
    free(config);
    struct lines lines = {0};
    config = config_new();
    /* a tree that contains itself */
    assert_int_equal(
        parse_text(config, BASE "postgresql: &a {data_directory: *a, hba: [*a], parameters: *a}\n", &lines), FAILED);
    assert_true(lines.count >= 3);
    lines_free(&lines);
    free(config);
}

static void test_shared_lines(void **state) {
    (void)state;
    static const struct {
        const char *key, *value;
        int line;
    } rows[] = {{"members.m2.peer", "10.0.0.2:7432", 5},
                {"members.m2.postgres", "10.0.0.2:5432", 5},
                {"members.m2.witness", "false", 5},
                {"members.m2.observer", "false", 0},
                {"members.m2.priority", "100", 0},
                {"members.m3.peer", "[fd00::3]:7432", 7},
                {"members.m3.postgres", "none", 0},
                {"members.m3.witness", "true", 8},
                {"members.m3.observer", "false", 0},
                {"members.m3.priority", "100", 0},
                {"members.m10.peer", "10.0.0.10:7432", 4},
                {"members.m10.postgres", "pg10.example:6432", 4},
                {"members.m10.witness", "false", 0},
                {"members.m10.observer", "false", 0},
                {"members.m10.priority", "0", 4},
                {"cluster", "shop", 1},
                {"replication.user", "repl", 24},
                {"durability", "async", 25},
                {"lease", "1500ms", 26},
                {"max_loss", "0", 27}};
    struct config *config = config_new();
    parse_good(config, FULL);
    assert_int_equal(config->shared_count, sizeof rows / sizeof rows[0]);
    for (unsigned i = 0; i < config->shared_count; i++) {
        assert_string_equal(config->shared[i].key, rows[i].key);
        assert_string_equal(config->shared[i].value, rows[i].value);
        assert_string_equal(config->shared[i].file, "F");
        assert_int_equal(config->shared[i].line, rows[i].line);
    }
    free(config);
}

/* ---- limits ---- */

/* So many voters, observers with data, and observers without. */
static char *members_yaml(unsigned voters, unsigned readers, unsigned others) {
    char *yaml = NULL;
    size_t size;
    FILE *out = open_memstream(&yaml, &size);
    fprintf(out, HEAD);
    for (unsigned i = 1; i <= voters + readers + others; i++)
        if (i <= voters + readers)
            fprintf(out, "  m%u: {peer: h%u:1, postgres: h%u:2%s}\n", i, i, i, i > voters ? ", observer: true" : "");
        else
            fprintf(out, "  m%u: {peer: h%u:1, observer: true}\n", i, i);
    fclose(out);
    return yaml;
}

static void test_members_limit(void **state) {
    (void)state;
    static const struct {
        unsigned voters, readers, others;
        const char *complaint;
    } rows[] = {
        {3, 0, MEMBERS_MAX - 2, "F:133:3: members: at most 128, this is one more: remove it"},
        {VOTERS_MAX + 1, 0, 3, "F:21:8: members: at most 16 may vote, m17 is one more: make it an observer"},
        {1, DATA_MEMBERS_MAX, 0,
         "F:37:8: members: at most 32 may hold data, m33 is one more: make it an observer without \"postgres\""},
    };
    struct config *config = config_new();
    char *yaml = members_yaml(VOTERS_MAX, DATA_MEMBERS_MAX - VOTERS_MAX, MEMBERS_MAX - DATA_MEMBERS_MAX);
    parse_good(config, yaml);
    assert_int_equal(config->members_count, MEMBERS_MAX);
    free(yaml);
    free(config);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        yaml = members_yaml(rows[i].voters, rows[i].readers, rows[i].others);
        assert_true(complaints_are(yaml, &rows[i].complaint, 1));
        free(yaml);
    }
}

/* `count` entries made of `entry` (which holds one %u), after `head` and before `tail`. */
static char *repeated(const char *head, const char *entry, unsigned count, const char *tail) {
    char *yaml = NULL;
    size_t size;
    FILE *out = open_memstream(&yaml, &size);
    fputs(head, out);
    for (unsigned i = 0; i < count; i++) {
        const char *mark = strstr(entry, "%u");
        fprintf(out, "%.*s%u%s", (int)(mark - entry), entry, i, mark + 2);
    }
    fputs(tail, out);
    fclose(out);
    return yaml;
}

static void test_list_limits(void **state) {
    (void)state;
    static const struct {
        const char *head, *entry, *tail, *complaint;
        unsigned good;
    } rows[] = {
        {BASE "postgresql: {data_directory: /pg, parameters: {", "a%u: 1,\n", "}}\n",
         "F:68:1: postgresql.parameters: at most 64, a64 is one more: remove it", CONFIG_LIST_MAX},
        {BASE "postgresql: {data_directory: /pg, hba: [", "local a%u a peer,\n", "]}\n",
         "F:68:1: postgresql.hba: at most 64 lines, this is one more: remove it", CONFIG_LIST_MAX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = config_new();
        const char *expected[] = {rows[i].complaint};
        char *good = repeated(rows[i].head, rows[i].entry, rows[i].good, rows[i].tail);
        char *bad = repeated(rows[i].head, rows[i].entry, rows[i].good + 1, rows[i].tail);
        parse_good(config, good);
        assert_true(complaints_are(bad, expected, 1));
        free(good);
        free(bad);
        free(config);
    }
}

static void test_many_mistakes_are_cut_short(void **state) {
    (void)state;
    struct config *config = config_new();
    struct lines lines = {0};
    char *yaml = repeated(BASE DATA, "x%u: 1\n", 200, "");
    assert_int_equal(parse_text(config, yaml, &lines), FAILED);
    assert_int_equal(lines.count, COMPLAINTS_MAX + 1);
    assert_string_equal(lines.text[COMPLAINTS_MAX], "F:1:1: there are more mistakes: mend these 100 first");
    lines_free(&lines);
    free(yaml);
    yaml = repeated("", "x%u: 1\n", 4000, "");
    assert_int_equal(parse_text(config, yaml, &lines), FAILED);
    assert_int_equal(lines.count, 1);
    assert_string_equal(lines.text[0], "F:1:1: the file: at most 256 entries, found 4000");
    lines_free(&lines);
    free(yaml);
    free(config);
}

/* Each would take libyaml minutes to build. */
static void test_bounds_of_the_tree(void **state) {
    (void)state;
    static const struct {
        const char *part, *place;
    } rows[] = {{"[", "F:1:9:"},   {"{", "F:1:9:"},  {"- ", "F:1:17:"},
                {"? ", "F:1:17:"}, {"[{", "F:1:9:"}, {"- &a 1\n", "F:9998:3:"}};
    static const char complaint[] = "sections and lists lie too deep in each other, or are too many: no configuration "
                                    "needs more than 8 levels or 10000 values";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = config_new();
        struct lines lines = {0};
        char expected[256];
        size_t length = FILE_BYTES_MAX, part = strlen(rows[i].part);
        char *yaml = calloc(1, length + 1);
        for (size_t j = 0; j < length; j++)
            yaml[j] = rows[i].part[j % part];
        assert_int_equal(parse_text(config, yaml, &lines), FAILED);
        assert_int_equal(lines.count, 1);
        snprintf(expected, sizeof expected, "%s %s", rows[i].place, complaint);
        assert_string_equal(lines.text[0], expected);
        lines_free(&lines);
        free(yaml);
        free(config);
    }
}

/* ---- files ---- */

static char directory[] = "/tmp/ttorch-config.XXXXXX";

static int make_directory(void **state) {
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

static const char *path_of(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void write_file(const char *name, const char *text, mode_t mode) {
    FILE *out = fopen(path_of(name), "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    assert_int_equal(chmod(path_of(name), mode), 0);
}

/* Loads `path`; returns what is said after "PATH:", or NULL if it is good. */
static const char *load_file(const char *path, struct config *config) {
    static char said[1024];
    struct lines lines = {0};
    said[0] = '\0';
    status loaded = config_load(config, path, collect, &lines);
    assert_int_equal(loaded == OK, lines.count == 0);
    if (lines.count > 0) {
        assert_int_equal(strncmp(lines.text[0], path, strlen(path)), 0);
        snprintf(said, sizeof said, "%s", lines.text[0] + strlen(path) + 1);
    }
    assert_true(lines.count <= 1);
    lines_free(&lines);
    return loaded == OK ? NULL : said;
}

static void test_files_that_are_none(void **state) {
    (void)state;
    struct config *config = config_new();
    char path[128];
    snprintf(path, sizeof path, "%s", path_of("none.yaml"));
    assert_string_equal(load_file(path, config),
                        "1:1: cannot read the configuration: No such file or directory: make the file readable for "
                        "this user, or name another with --config");
    assert_string_equal(load_file(directory, config),
                        "1:1: cannot read the configuration: it is no regular file: make the file readable for this "
                        "user, or name another with --config");
    snprintf(path, sizeof path, "%s", path_of("fifo"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_non_null(load_file(path, config));
    char *large = repeated("", "#%u\n", 200000, "");
    write_file("large.yaml", large, 0600);
    snprintf(path, sizeof path, "%s", path_of("large.yaml"));
    assert_string_equal(load_file(path, config), "1:1: the file has more than 1048576 bytes: this is no configuration");
    free(large);
    free(config);
}

static void write_config(const char *password_file) {
    char text[512];
    snprintf(text, sizeof text,
             BASE "postgresql: {data_directory: /pg, bin_directory: /b}\nreplication: {password_file: %s}\n",
             path_of(password_file));
    write_file("c.yaml", text, 0644);
}

static void test_password_file(void **state) {
    (void)state;
    static const struct {
        const char *text;
        mode_t mode;
        const char *said; /* NULL = good */
    } rows[] = {{"secret\n", 0600, NULL},
                {"secret", 0400, NULL},
                {"secret\n", 0640, "has mode 0640, so that others may read it: chmod 0600"},
                {"secret\n", 0604, "has mode 0604, so that others may read it: chmod 0600"},
                {"", 0600, "is empty, or its first line is: write the password there"},
                {"\nsecret\n", 0600, "is empty, or its first line is: write the password there"}};
    struct config *config = config_new();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char expected[512], path[128];
        write_file("password", rows[i].text, rows[i].mode);
        write_config("password");
        snprintf(path, sizeof path, "%s", path_of("c.yaml"));
        snprintf(expected, sizeof expected, "5:30: replication.password_file: \"%s/password\" %s", directory,
                 rows[i].said);
        const char *said = load_file(path, config);
        if (rows[i].said == NULL)
            assert_null(said);
        else {
            assert_non_null(said);
            assert_string_equal(said, expected);
        }
        unlink(path_of("password"));
    }
    free(config);
}

static void test_password_file_missing(void **state) {
    (void)state;
    struct config *config = config_new();
    struct lines lines = {0};
    char path[128], expected[512];
    write_config("nowhere");
    snprintf(path, sizeof path, "%s", path_of("c.yaml"));
    snprintf(expected, sizeof expected,
             "5:30: replication.password_file: \"%s/nowhere\" cannot be read (No such file or directory): write the "
             "password there, mode 0600",
             directory);
    assert_string_equal(load_file(path, config), expected);
    assert_int_equal(config_load_for_client(config, path, collect, &lines), OK); /* the client does not look */
    assert_int_equal(lines.count, 0);
    free(config);
}

/* What the files hold is looked at, too; all that is good is tested with tls/. */
static void test_certificate_files(void **state) {
    (void)state;
    static const struct {
        mode_t mode; /* of the key */
        const char *said;
    } rows[] = {{0600, "4:26: http.certificate_file: \"%s/c.pem\" holds no certificate in PEM format"},
                {0640, "5:13: http.key_file: \"%s/c.key\" has mode 0640, so that others may read it: chmod 0600"}};
    struct config *config = config_new();
    char text[512], path[128], expected[256];
    write_file("password", "secret", 0600);
    write_file("c.pem", "nonsense", 0644);
    snprintf(text, sizeof text,
             BASE "http: {certificate_file: %s/c.pem,\n  key_file: %s/c.key}\n"
                  "postgresql: {data_directory: /pg, bin_directory: /b}\nreplication: {password_file: %s/password}\n",
             directory, directory, directory);
    write_file("c.yaml", text, 0644);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_file("c.key", "nonsense", rows[i].mode);
        snprintf(path, sizeof path, "%s", path_of("c.yaml"));
        snprintf(expected, sizeof expected, rows[i].said, directory);
        const char *said = load_file(path, config);
        assert_non_null(said);
        if (strncmp(said, expected, strlen(expected)) != 0)
            fail_msg("%s", said);
        unlink(path_of("c.key"));
    }
    unlink(path_of("c.pem"));
    unlink(path_of("password"));
    free(config);
}

static void make_program(const char *version) {
    char name[64];
    snprintf(name, sizeof name, "lib/%s", version);
    mkdir(path_of("lib"), 0755);
    mkdir(path_of(name), 0755);
    snprintf(name, sizeof name, "lib/%s/bin", version);
    mkdir(path_of(name), 0755);
    snprintf(name, sizeof name, "lib/%s/bin/postgres", version);
    write_file(name, "", 0755);
}

static void test_programs(void **state) {
    (void)state;
    char pattern[128], found[256], data[128];
    snprintf(pattern, sizeof pattern, "%s", path_of("lib/*/bin/postgres"));
    snprintf(data, sizeof data, "%s", path_of("data"));
    assert_false(programs_find(pattern, data, found, sizeof found));
    make_program("9.6");
    make_program("15");
    make_program("14");
    assert_true(programs_find(pattern, data, found, sizeof found));
    assert_string_equal(found, path_of("lib/15/bin")); /* the newest, as a number */
    assert_int_equal(mkdir(data, 0700), 0);
    write_file("data/PG_VERSION", "14\n", 0600);
    assert_true(programs_find(pattern, data, found, sizeof found));
    assert_string_equal(found, path_of("lib/14/bin")); /* that of the data directory */
    write_file("data/PG_VERSION", "13\n", 0600);
    assert_true(programs_find(pattern, data, found, sizeof found));
    assert_string_equal(found, path_of("lib/15/bin"));
}

/* ---- reloading ---- */

static void collect_change(void *user, const char *key, const char *before, const char *after, bool at_run_time) {
    char line[1024];
    snprintf(line, sizeof line, "%s: %s -> %s%s", key, before, after, at_run_time ? "" : " (restart)");
    collect(user, line);
}

static void test_compare(void **state) {
    (void)state;
    static const char *const expected[] = {
        "members.m2: a member -> none (restart)",
        "members.m3: none -> a member (restart)",
        "members.m1.priority: 100 -> 50 (restart)",
        "http.port: 8008 -> 80 (restart)",
        "postgresql.parameters: a = '1', b = '2' -> a = '1', b = '3'",
        "postgresql.hba:  -> local all all peer | host all all ::1 trust",
        "lease: 2s -> 2500ms (restart)",
        "probe.interval: 1s -> 500ms",
    };
    struct config *before = config_new(), *after = config_new();
    struct lines lines = {0};
    parse_good(before, "cluster: shop\nmember: m1\nmembers:\n" M1 "  m2: {peer: b:1, postgres: b:2}\n"
                       "postgresql: {data_directory: /pg, parameters: {a: 1, b: 2}}\n");
    parse_good(after, "cluster: shop\nmember: m1\nmembers:\n  m3: {peer: b:1, postgres: b:2}\n"
                      "  m1: {peer: a:1, postgres: a:2, priority: 50}\nlease: 2500ms\nprobe: {interval: 500ms}\n"
                      "postgresql: {data_directory: /pg, parameters: {b: 3, a: 1}, "
                      "hba: [local all all peer, \"host all all ::1 trust\"]}\nhttp: {port: 80}\n");
    config_compare(before, before, collect_change, &lines);
    assert_int_equal(lines.count, 0);
    config_compare(before, after, collect_change, &lines);
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_true(i < lines.count);
        assert_string_equal(lines.text[i], expected[i]);
    }
    assert_int_equal(lines.count, sizeof expected / sizeof expected[0]);
    lines_free(&lines);
    config_take_over(before, after);
    config_compare(before, after, collect_change, &lines);
    assert_int_equal(lines.count, sizeof expected / sizeof expected[0] - 3);
    for (unsigned i = 0; i < lines.count; i++)
        assert_non_null(strstr(lines.text[i], "(restart)"));
    lines_free(&lines);
    free(before);
    free(after);
}

/* ---- the manual ---- */

static char *read_whole(FILE *in) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(in);
    rewind(in);
    for (int c; (c = fgetc(in)) != EOF;)
        fputc(c, out);
    fclose(out);
    fclose(in);
    return text;
}

static char *printed_table(void) {
    FILE *out = tmpfile();
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(out), STDOUT_FILENO);
    config_print_table();
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    return read_whole(out);
}

static void test_manual_has_the_table(void **state) {
    (void)state;
    static const char begin[] = "<!-- settings: begin -->\n", end[] = "<!-- settings: end -->";
    char *manual = read_whole(fopen(DOCS "/CONFIGURATION.md", "r")), *table = printed_table();
    char *from = strstr(manual, begin), *to = strstr(manual, end);
    assert_non_null(from);
    assert_non_null(to);
    *to = '\0';
    assert_string_equal(from + strlen(begin), table);
    free(manual);
    free(table);
}

static void test_example(void **state) {
    (void)state;
    struct config *config = config_new();
    struct lines lines = {0};
    assert_int_equal(config_load_for_client(config, DOCS "/examples/three.yaml", collect, &lines), OK);
    assert_int_equal(config->members_count, 3);
    char *text = read_whole(fopen(DOCS "/examples/three.yaml", "r"));
    unsigned newlines = 0;
    for (const char *c = text; *c != '\0'; c++)
        newlines += *c == '\n';
    assert_in_range(newlines, 1, 24);
    char *manual = read_whole(fopen(DOCS "/CONFIGURATION.md", "r"));
    assert_non_null(strstr(manual, text)); /* shown there as it is */
    free(manual);
    free(text);
    free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complaints),
        cmocka_unit_test(test_managed_parameters),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_setting),
        cmocka_unit_test(test_witness_needs_little),
        cmocka_unit_test(test_observers),
        cmocka_unit_test(test_anchors_and_aliases),
        cmocka_unit_test(test_shared_lines),
        cmocka_unit_test(test_members_limit),
        cmocka_unit_test(test_list_limits),
        cmocka_unit_test(test_many_mistakes_are_cut_short),
        cmocka_unit_test(test_bounds_of_the_tree),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_password_file),
        cmocka_unit_test(test_password_file_missing),
        cmocka_unit_test(test_certificate_files),
        cmocka_unit_test(test_programs),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_manual_has_the_table),
        cmocka_unit_test(test_example),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
