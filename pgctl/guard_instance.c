#include "pgctl/guard_instance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/panic.h"
#include "pgctl/guard_process.h"
#include "pgctl/guard_say.h"

#define LEAVING_MS        500 /* the log collector ends within a few ms of the last writer */
#define LOOK_DELAY_MIN_MS 2   /* survivors of one look are those that were just forked */
#define LOOK_DELAY_MAX_MS 100 /* or hang in the kernel: do not spin on them with real-time priority */

static void phase_set(struct instance *instance, enum instance_phase phase) {
    static const bool legal[4][4] = {
        [INSTANCE_DOWN] = {[INSTANCE_RUNNING] = true},
        [INSTANCE_RUNNING] = {[INSTANCE_LEAVING] = true, [INSTANCE_KILLING] = true},
        [INSTANCE_LEAVING] = {[INSTANCE_DOWN] = true, [INSTANCE_KILLING] = true},
        [INSTANCE_KILLING] = {[INSTANCE_DOWN] = true},
    };
    static const enum guard_server servers[] = {
        [INSTANCE_DOWN] = GUARD_DOWN,
        [INSTANCE_RUNNING] = GUARD_RUNNING,
        [INSTANCE_LEAVING] = GUARD_KILLING,
        [INSTANCE_KILLING] = GUARD_KILLING,
    };
    require(legal[instance->phase][phase]);
    instance->phase = phase;
    instance->told.server = servers[phase];
}

status instance_init(struct instance *instance, struct error *error) {
    *instance = (struct instance){
        .exec_failure = -1,
        .told = {.guard_pid = getpid(), .server = GUARD_DOWN, .deadline = NSEC_NEVER},
    };
    instance->timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (instance->timer < 0)
        return error_set(error, "could not create a timer: %s", strerror(errno));
    return OK;
}

/* ---- the deadline ---- */

static void deadline_set(struct instance *instance, nsec deadline) {
    struct itimerspec when = {0}; /* disarmed */
    if (deadline != NSEC_NEVER) {
        when.it_value.tv_sec = (time_t)(deadline / NSEC_PER_SEC);
        when.it_value.tv_nsec = (long)(deadline % NSEC_PER_SEC) | 1; /* zero would disarm */
    }
    instance->told.deadline = deadline;
    require(timerfd_settime(instance->timer, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

status instance_arm(struct instance *instance, uint32_t epoch, nsec deadline, struct error *error) {
    struct guard_told *told = &instance->told;
    if (epoch < told->epoch)
        return error_set(error, "epoch %u is over, %u was armed", epoch, told->epoch);
    if (instance->phase == INSTANCE_KILLING)
        return error_set(error, "the instance is being killed");
    bool earlier = epoch == told->epoch && told->deadline != NSEC_NEVER && deadline < told->deadline;
    told->epoch = epoch;
    if (!earlier)
        deadline_set(instance, deadline);
    instance_tick(instance);
    return OK;
}

/* ---- the end ---- */

static void look_and_kill(struct instance *instance) {
    instance_processes_kill(instance->postmaster);
    instance->next_look = time_now() + instance->look_delay;
    instance->look_delay *= 2;
    if (instance->look_delay > msec(LOOK_DELAY_MAX_MS))
        instance->look_delay = msec(LOOK_DELAY_MAX_MS);
}

void instance_kill(struct instance *instance) {
    if (instance->phase != INSTANCE_RUNNING && instance->phase != INSTANCE_LEAVING)
        return;
    phase_set(instance, INSTANCE_KILLING);
    instance->ended = time_now();
    instance->look_delay = msec(LOOK_DELAY_MIN_MS);
    look_and_kill(instance);
    guard_say("killing: signalled everyone within %llu us", (unsigned long long)(time_now() - instance->ended) / 1000);
}

static void exec_failure_read(struct instance *instance) {
    int code;
    if (read(instance->exec_failure, &code, sizeof code) == sizeof code)
        snprintf(instance->told.failure, sizeof instance->told.failure, "could not execute the program: %s",
                 strerrordesc_np(code));
    close(instance->exec_failure);
    instance->exec_failure = -1;
}

static void postmaster_ended(struct instance *instance, int exit_status) {
    instance->postmaster = 0;
    instance->told.exit_status = exit_status;
    exec_failure_read(instance);
    if (instance->phase == INSTANCE_KILLING)
        return;
    if (!WIFEXITED(exit_status)) {
        instance_kill(instance);
        return;
    }
    phase_set(instance, INSTANCE_LEAVING);
    instance->ended = time_now();
    instance->next_look = instance->ended + msec(LEAVING_MS);
}

static void all_ended(struct instance *instance) {
    struct guard_told *told = &instance->told;
    phase_set(instance, INSTANCE_DOWN);
    guard_say("postmaster %d ended: %s %d%s; its last process was gone %llu us later", told->postmaster_pid,
              WIFSIGNALED(told->exit_status) ? "signal" : "exit code",
              WIFSIGNALED(told->exit_status) ? WTERMSIG(told->exit_status) : WEXITSTATUS(told->exit_status),
              told->killed_by_deadline ? " at the deadline" : "",
              (unsigned long long)(time_now() - instance->ended) / 1000);
    told->postmaster_pid = 0;
    told->exits++;
}

void instance_reap(struct instance *instance) {
    int exit_status;
    pid_t pid;
    while ((pid = waitpid(-1, &exit_status, WNOHANG)) > 0)
        if (pid == instance->postmaster)
            postmaster_ended(instance, exit_status);
    if (pid < 0 && errno == ECHILD && instance->phase != INSTANCE_DOWN)
        all_ended(instance);
}

void instance_tick(struct instance *instance) {
    nsec now = time_now();
    bool expired = now >= instance->told.deadline;
    if (instance->phase == INSTANCE_RUNNING && expired) {
        instance->told.killed_by_deadline = true;
        guard_say("deadline of epoch %u passed %llu us ago: killing", instance->told.epoch,
                  (unsigned long long)(now - instance->told.deadline) / 1000);
        instance_kill(instance);
    } else if (instance->phase == INSTANCE_LEAVING && (expired || now >= instance->next_look)) {
        instance_kill(instance);
    } else if (instance->phase == INSTANCE_KILLING && now >= instance->next_look) {
        look_and_kill(instance);
    }
}

bool instance_is_patient(const struct instance *instance) {
    return instance->phase == INSTANCE_DOWN ||
           (instance->phase == INSTANCE_RUNNING && instance->told.deadline == NSEC_NEVER);
}

nsec instance_next(const struct instance *instance) {
    bool waits = instance->phase == INSTANCE_LEAVING || instance->phase == INSTANCE_KILLING;
    return waits ? instance->next_look : NSEC_NEVER;
}

/* ---- the beginning ---- */

/* Scheduling was reset by the fork (SCHED_RESET_ON_FORK), memory locks are not inherited, and all our descriptors close
 * on exec. */
static _Noreturn void postmaster_exec(pid_t guard, int failure, char *const argv[]) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard) /* it died before the line above */
        _exit(127);
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < SIGRTMIN; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(argv[0], argv);
    int code = errno;
    ssize_t written = write(failure, &code, sizeof code);
    _exit(written == sizeof code ? 127 : 126);
}

status instance_start(struct instance *instance, char *const argv[], struct error *error) {
    if (instance->phase != INSTANCE_DOWN)
        return error_set(error, "postmaster %d has not ended", instance->told.postmaster_pid);
    int failure[2];
    if (pipe2(failure, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_set(error, "could not make a pipe: %s", strerrordesc_np(errno));
    pid_t guard = getpid();
    pid_t pid = fork();
    if (pid == 0)
        postmaster_exec(guard, failure[1], argv);
    int fork_error = errno;
    close(failure[1]);
    if (pid < 0) {
        close(failure[0]);
        return error_set(error, "could not fork: %s", strerrordesc_np(fork_error));
    }
    instance->postmaster = pid;
    instance->exec_failure = failure[0];
    instance->told.postmaster_pid = pid;
    instance->told.killed_by_deadline = false;
    memset(instance->told.failure, 0, sizeof instance->told.failure);
    deadline_set(instance, NSEC_NEVER);
    phase_set(instance, INSTANCE_RUNNING);
    guard_say("started postmaster %d: %s", pid, argv[0]);
    return OK;
}

status instance_signal(struct instance *instance, int signal, struct error *error) {
    if (instance->postmaster == 0)
        return error_set(error, "no postmaster is running");
    if (signal <= 0 || signal >= SIGRTMIN)
        return error_set(error, "%d is not a signal to send", signal);
    kill(instance->postmaster, signal);
    return OK;
}
