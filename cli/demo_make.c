/* Making the demo's cluster: programs, user, directory, ports, files. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/demo_cluster.h"

#define PORT_FIRST 15000 /* below the range from which the kernel gives out local ports: none is taken while a */
#define PORT_LAST  32000 /* PostgreSQL is down */
#define PORT_TRIES 2000

/* ---- programs ---- */

static bool find_in(const char *const places[], const char *from, const char *name, char *ret_path) {
    for (; *places; places++) {
        snprintf(ret_path, DEMO_PROGRAM_MAX, "%s/%s%s", from, *places, name);
        if (access(ret_path, X_OK) == 0)
            return true;
    }
    return false;
}

static void directory_of(const char *path, char ret_directory[PATH_MAX_LENGTH + 1]) {
    const char *slash = strrchr(path, '/');
    snprintf(ret_directory, PATH_MAX_LENGTH + 1, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
}

/* Beside us: as installed, or in the build tree. */
static status find_ttorchd(struct cluster *cluster, struct error *error) {
    static const char *const places[] = {"", "../sbin/", "../daemon/", NULL};
    char here[PATH_MAX_LENGTH + 1];
    const char *given = getenv("TTORCHD");
    ssize_t length = readlink("/proc/self/exe", cluster->ttorch, sizeof cluster->ttorch - 1);
    if (length <= 0)
        return error_set(error, "could not find our own program: %s", strerror(errno));
    if (given) {
        snprintf(cluster->ttorchd, sizeof cluster->ttorchd, "%s", given);
        return access(given, X_OK) == 0 ? OK : error_set(error, "TTORCHD=%s: %s", given, strerror(errno));
    }
    directory_of(cluster->ttorch, here);
    if (find_in(places, here, "ttorchd", cluster->ttorchd))
        return OK;
    return error_set(error, "there is no ttorchd beside %s: build it, or set TTORCHD to its path", cluster->ttorch);
}

/* Where ttorchd itself looks for it. */
static status find_guard(const char *ttorchd, char *ret_path, struct error *error) {
    static const char *const places[] = {"", "../pgctl/", NULL};
    char there[PATH_MAX_LENGTH + 1];
    directory_of(ttorchd, there);
    return find_in(places, there, "ttorch-guard", ret_path) ? OK
                                                            : error_set(error, "there is no ttorch-guard in %s", there);
}

static status newest_postgres(char *ret_bin, struct error *error) {
    glob_t found;
    long newest = 0;
    const char *given = getenv("PG_BIN");
    if (given) {
        snprintf(ret_bin, DEMO_PROGRAM_MAX, "%s", given);
        return OK;
    }
    if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            long version = strtol(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"), NULL, 10);
            if (version >= 14 && version <= 18 && version > newest)
                newest = version;
        }
        globfree(&found);
    }
    snprintf(ret_bin, DEMO_PROGRAM_MAX, "/usr/lib/postgresql/%ld/bin", newest);
    return newest ? OK
                  : error_set(error, "found no PostgreSQL 14 to 18 in /usr/lib/postgresql: "
                                     "apt install postgresql, or set PG_BIN to where initdb is");
}

/* ---- user ---- */

/* PostgreSQL refuses to run as root. */
static const struct passwd *unprivileged_user(void) {
    const struct passwd *user = getpwnam("postgres");
    return user ? user : getpwnam("nobody");
}

static bool user_can_run(const struct passwd *user, const char *program) {
    if (setegid(user->pw_gid) != 0 || seteuid(user->pw_uid) != 0)
        return false;
    bool can = eaccess(program, X_OK) == 0;
    return seteuid(0) == 0 && setegid(0) == 0 && can;
}

static status copy_program(const char *from, const char *to, struct error *error) {
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    ssize_t sent = in >= 0 && out >= 0 ? 1 : -1;
    while (sent > 0)
        sent = sendfile(out, in, NULL, 1 << 30);
    int problem = errno;
    if (in >= 0)
        close(in);
    if (out >= 0 && (fchmod(out, 0755) != 0 || close(out) != 0))
        sent = -1;
    return sent == 0 ? OK : error_set(error, "could not copy %s to %s: %s", from, to, strerror(problem));
}

/* A checkout in root's home cannot be entered by anybody else: then the demo runs copies. */
static status lend_programs(struct cluster *cluster, const struct passwd *user, const char *guard,
                            struct error *error) {
    char bin[DEMO_PATH_MAX], copy[DEMO_PATH_MAX + 16];
    if (user_can_run(user, cluster->ttorchd) && user_can_run(user, guard))
        return OK;
    snprintf(bin, sizeof bin, "%s/bin", cluster->directory);
    if (mkdir(bin, 0755) != 0 || chown(bin, user->pw_uid, user->pw_gid) != 0)
        return error_set(error, "could not make %s: %s", bin, strerror(errno));
    snprintf(copy, sizeof copy, "%s/ttorch-guard", bin);
    if (copy_program(guard, copy, error) != OK)
        return FAILED;
    snprintf(copy, sizeof copy, "%s/ttorchd", bin);
    if (copy_program(cluster->ttorchd, copy, error) != OK)
        return FAILED;
    snprintf(cluster->ttorchd, sizeof cluster->ttorchd, "%s", copy);
    return OK;
}

static status become(uid_t uid, gid_t gid, struct error *error) {
    if (setgroups(1, &gid) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
        return error_set(error, "could not become user %u: %s", (unsigned)uid, strerror(errno));
    /* Forgotten at a change of user; /proc shows it to us again. */
    prctl(PR_SET_DUMPABLE, 1);
    return OK;
}

static status drop_privileges(struct cluster *cluster, const char *guard, struct error *error) {
    if (geteuid() != 0)
        return OK;
    const struct passwd *user = unprivileged_user();
    if (!user)
        return error_set(error, "PostgreSQL does not run as root, and there is no user postgres or nobody");
    snprintf(cluster->user, sizeof cluster->user, "%s", user->pw_name);
    if (chown(cluster->directory, user->pw_uid, user->pw_gid) != 0)
        return error_set(error, "could not give %s to %s: %s", cluster->directory, cluster->user, strerror(errno));
    if (lend_programs(cluster, user, guard, error) != OK)
        return FAILED;
    return become(user->pw_uid, user->pw_gid, error);
}

status cluster_become_owner(const char *directory, struct error *error) {
    struct stat owner;
    if (stat(directory, &owner) != 0)
        return error_set(error, "%s: %s", directory, strerror(errno));
    return geteuid() == 0 && owner.st_uid != 0 ? become(owner.st_uid, owner.st_gid, error) : OK;
}

/* ---- directory and ports ---- */

static status directory_take(struct cluster *cluster, const char *given, struct error *error) {
    char here[PATH_MAX] = "";
    if (given[0] != '/' && !getcwd(here, sizeof here))
        return error_set(error, "could not find the working directory: %s", strerror(errno));
    int length = snprintf(cluster->directory, sizeof cluster->directory, "%s%s%s", here, here[0] ? "/" : "", given);
    if (length > DEMO_DIRECTORY_MAX)
        return error_set(error, "--directory %s: longer than %d bytes; paths of unix sockets are short", given,
                         DEMO_DIRECTORY_MAX);
    for (const char *c = cluster->directory; *c; c++)
        if (!strchr("/._-", *c) && !(*c >= '0' && *c <= '9') && !((*c | 0x20) >= 'a' && (*c | 0x20) <= 'z'))
            return error_set(error, "--directory %s: only letters, digits and /._- please", given);
    if (mkdir(cluster->directory, 0700) != 0)
        return error_set(error, "could not make %s: %s", cluster->directory, strerror(errno));
    return OK;
}

static status directory_fresh(struct cluster *cluster, struct error *error) {
    const char *base = getenv("TMPDIR");
    if (!base || base[0] != '/' || strlen(base) > DEMO_DIRECTORY_MAX - 16)
        base = "/tmp";
    snprintf(cluster->directory, sizeof cluster->directory, "%s/ttorch-XXXXXX", base);
    if (!mkdtemp(cluster->directory))
        return error_set(error, "could not make a directory in %s: %s", base, strerror(errno));
    return OK;
}

static bool port_is_free(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    bool is = fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0;
    if (fd >= 0)
        close(fd);
    return is;
}

/* Ports in ascending order from a random one: no two are the same, and two demos rarely meet. */
static status choose_ports(struct cluster *cluster, struct error *error) {
    unsigned chosen = 0;
    uint16_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return error_set(error, "no random numbers: %s", strerror(errno));
    unsigned port = PORT_FIRST + seed % (PORT_LAST - PORT_FIRST - PORT_TRIES);
    for (unsigned tries = 0; tries < PORT_TRIES && chosen < 2 * cluster->count; tries++, port++) {
        if (!port_is_free((uint16_t)port))
            continue;
        struct cluster_member *member = &cluster->members[chosen / 2];
        *(chosen % 2 ? &member->postgres_port : &member->peer_port) = (uint16_t)port;
        chosen++;
    }
    return chosen == 2 * cluster->count ? OK : error_set(error, "found no free ports on 127.0.0.1");
}

/* ---- files ---- */

static status random_password(char ret_text[33], struct error *error) {
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return error_set(error, "no random numbers: %s", strerror(errno));
    for (unsigned i = 0; i < sizeof bytes; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
    return OK;
}

static status file_open(const struct cluster *cluster, const char *name, mode_t mode, FILE **ret_file,
                        struct error *error) {
    char path[DEMO_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", cluster->directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 || !(*ret_file = fdopen(fd, "w")))
        return error_set(error, "could not write %s: %s", path, strerror(errno));
    return OK;
}

static status file_close(FILE *file, struct error *error) {
    bool bad = ferror(file) != 0;
    return fclose(file) == 0 && !bad ? OK : error_set(error, "could not write a file: %s", strerror(errno));
}

static status write_secrets(struct cluster *cluster, struct error *error) {
    FILE *file;
    char replication[33];
    if (random_password(cluster->password, error) != OK || random_password(replication, error) != OK)
        return FAILED;
    if (file_open(cluster, "replication.password", 0600, &file, error) != OK)
        return FAILED;
    fprintf(file, "%s\n", replication);
    if (file_close(file, error) != OK || file_open(cluster, "pgpass", 0600, &file, error) != OK)
        return FAILED;
    fprintf(file, "127.0.0.1:*:*:postgres:%s\n", cluster->password);
    if (file_close(file, error) != OK || file_open(cluster, DEMO_MARK, 0600, &file, error) != OK)
        return FAILED;
    fprintf(file, "A throw-away cluster of `ttorch demo`. To end it: ttorch demo --stop %s\n", cluster->directory);
    return file_close(file, error);
}

static void print_config(FILE *file, const struct cluster *cluster, const struct cluster_member *self) {
    const char *directory = cluster->directory, *name = self->name;
    fprintf(file, "cluster: demo\nmember: %s\nmembers:\n", name);
    for (unsigned i = 0; i < cluster->count; i++) {
        const struct cluster_member *member = &cluster->members[i];
        fprintf(file, "  %s: {peer: \"127.0.0.1:%u\", postgres: \"127.0.0.1:%u\"}\n", member->name, member->peer_port,
                member->postgres_port);
    }
    fprintf(file, "data_directory: %s/%s/ttorch\nruntime_directory: %s/%s\n", directory, name, directory, name);
    fprintf(file, "postgresql:\n  bin_directory: %s\n", cluster->postgres_bin);
    fprintf(file, "  data_directory: %s/%s/data\n  socket_directory: %s/%s\n", directory, name, directory, name);
    /* With mmap nothing of a killed PostgreSQL stays in /dev/shm. */
    fprintf(file, "  listen_addresses: 127.0.0.1\n"
                  "  parameters:\n"
                  "    shared_buffers: 32MB\n"
                  "    max_connections: 60\n"
                  "    dynamic_shared_memory_type: mmap\n"
                  "  hba:\n"
                  "    - local all postgres trust\n"
                  "    - host all postgres 127.0.0.1/32 scram-sha-256\n");
    fprintf(file, "replication:\n  password_file: %s/replication.password\n", directory);
    fprintf(file, "durability: quorum\nlease: %s\nprobe: {interval: 500ms, timeout: 1s}\n", cluster->lease);
}

static status write_member(struct cluster *cluster, struct cluster_member *member, struct error *error) {
    FILE *file;
    char path[DEMO_DIRECTORY_MAX + sizeof member->name + 1], name[sizeof member->name + 5];
    const char *directory = cluster->directory;
    snprintf(path, sizeof path, "%s/%s", directory, member->name);
    if (mkdir(path, 0700) != 0)
        return error_set(error, "could not make %s: %s", path, strerror(errno));
    snprintf(member->config, sizeof member->config, "%s/%s.yaml", directory, member->name);
    snprintf(member->log, sizeof member->log, "%s/%s.log", directory, member->name);
    snprintf(member->socket, sizeof member->socket, "%s/ttorchd.sock", path);
    snprintf(member->pid_file, sizeof member->pid_file, "%s/data/postmaster.pid", path);
    snprintf(member->conninfo, sizeof member->conninfo,
             "host=%s port=%u user=postgres dbname=postgres connect_timeout=5 application_name=ttorch-demo", path,
             member->postgres_port);
    snprintf(name, sizeof name, "%s.yaml", member->name);
    if (file_open(cluster, name, 0600, &file, error) != OK)
        return FAILED;
    print_config(file, cluster, member);
    return file_close(file, error);
}

/* Libpq and ttorchd are to hear nothing of the caller's own PostgreSQL or service manager. */
static void clean_environment(void) {
    static const char *const names[] = {
        "PGHOST",           "PGHOSTADDR",    "PGPORT",        "PGDATABASE",    "PGUSER",
        "PGPASSWORD",       "PGPASSFILE",    "PGSERVICE",     "PGDATA",        "PGSERVICEFILE",
        "PGOPTIONS",        "PGAPPNAME",     "PGSSLMODE",     "PGREQUIREAUTH", "PGTARGETSESSIONATTRS",
        "PGCLIENTENCODING", "PGREQUIREPEER", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
        "JOURNAL_STREAM",   "LISTEN_FDS",    "LISTEN_PID"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}

static status take_directory(struct cluster *cluster, const char *given, struct error *error) {
    char real[PATH_MAX];
    if ((given ? directory_take(cluster, given, error) : directory_fresh(cluster, error)) != OK)
        return FAILED;
    cluster->made = true;
    if (!realpath(cluster->directory, real) || strlen(real) > DEMO_DIRECTORY_MAX)
        return error_set(error, "%s: its path without links cannot be found, or is too long", cluster->directory);
    memcpy(cluster->directory, real, strlen(real) + 1);
    return OK;
}

status cluster_make(struct cluster *cluster, unsigned members, const char *lease, const char *directory,
                    struct error *error) {
    char guard[DEMO_PROGRAM_MAX];
    *cluster = (struct cluster){.count = members};
    snprintf(cluster->lease, sizeof cluster->lease, "%s", lease);
    if (find_ttorchd(cluster, error) != OK || find_guard(cluster->ttorchd, guard, error) != OK ||
        newest_postgres(cluster->postgres_bin, error) != OK || take_directory(cluster, directory, error) != OK ||
        drop_privileges(cluster, guard, error) != OK)
        return FAILED;
    if (chdir(cluster->directory) != 0)
        return error_set(error, "could not enter %s: %s", cluster->directory, strerror(errno));
    clean_environment();
    if (choose_ports(cluster, error) != OK || write_secrets(cluster, error) != OK)
        return FAILED;
    for (unsigned i = 0; i < members; i++)
        memcpy(cluster->members[i].name, (char[]){'m', (char)('1' + i), '\0'}, 3);
    for (unsigned i = 0; i < members; i++)
        if (write_member(cluster, &cluster->members[i], error) != OK)
            return FAILED;
    return OK;
}
