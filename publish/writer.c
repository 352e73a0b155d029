#include "publish/writer.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

struct order {
    char *text; /* NULL = nothing to write */
    const char *path;
    struct file_manner manner;
    uint64_t number;
    bool begun;   /* `change` is to be finished */
    bool renamed; /* its directory is to be synced */
    struct file_change change;
};

struct outcome {
    bool is_new;
    bool failed;
    uint64_t number;
    struct error error;
};

struct writer {
    pthread_t thread;
    uv_async_t wake;
    writer_done *done;
    void *user;
    bool closing;
    void (*closed)(void *user);
    void *closed_user;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t more;
    bool ending, ended;
    struct order orders[WRITER_FILES_MAX]; /* the mailbox: a newer text takes the place of an older one */
    struct outcome outcomes[WRITER_FILES_MAX];
};

/* ---- in the thread ---- */

static bool anything(const struct order orders[WRITER_FILES_MAX]) {
    for (unsigned i = 0; i < WRITER_FILES_MAX; i++)
        if (orders[i].text != NULL)
            return true;
    return false;
}

/* Waits for orders and takes them all; false when there will be no more. */
static bool take(struct writer *writer, struct order taken[WRITER_FILES_MAX]) {
    pthread_mutex_lock(&writer->lock);
    while (!anything(writer->orders) && !writer->ending)
        pthread_cond_wait(&writer->more, &writer->lock);
    memcpy(taken, writer->orders, sizeof writer->orders);
    memset(writer->orders, 0, sizeof writer->orders);
    bool some = anything(taken);
    if (!some)
        writer->ended = true;
    pthread_mutex_unlock(&writer->lock);
    return some;
}

static void tell(struct writer *writer, unsigned file, const struct order *order, status result,
                 const struct error *error) {
    pthread_mutex_lock(&writer->lock);
    writer->outcomes[file] = (struct outcome){.is_new = true, .failed = result != OK, .number = order->number};
    if (result != OK)
        writer->outcomes[file].error = *error;
    pthread_mutex_unlock(&writer->lock);
    uv_async_send(&writer->wake);
}

/* In rounds, so that the disk has all files at once: their fsyncs then wait for one write of its journal, not each for
 * one of its own. */
static void write_all(struct writer *writer, struct order taken[WRITER_FILES_MAX]) {
    struct error error;
    for (unsigned i = 0; i < WRITER_FILES_MAX; i++) {
        struct order *order = &taken[i];
        if (order->text == NULL)
            continue;
        order->begun = file_begin(&order->change, order->path, order->text, &order->manner, &error) == OK;
        free(order->text);
        order->text = NULL;
        if (!order->begun)
            tell(writer, i, order, FAILED, &error);
    }
    for (unsigned i = 0; i < WRITER_FILES_MAX; i++) {
        struct order *order = &taken[i];
        if (!order->begun)
            continue;
        status result = file_finish(&order->change, &error);
        tell(writer, i, order, result, &error);
        order->renamed = result == OK && !order->manner.quick;
    }
}

static bool synced_before(const struct order taken[WRITER_FILES_MAX], unsigned file) {
    for (unsigned i = 0; i < file; i++)
        if (taken[i].renamed && file_same_directory(taken[i].path, taken[file].path))
            return true;
    return false;
}

/* Somebody waits for the new names, and nobody for this: that they last. */
static void sync_directories(struct writer *writer, struct order taken[WRITER_FILES_MAX]) {
    struct error error;
    for (unsigned i = 0; i < WRITER_FILES_MAX; i++)
        if (taken[i].renamed && !synced_before(taken, i) && file_sync_directory(taken[i].path, &error) != OK)
            tell(writer, i, &taken[i], FAILED, &error);
}

static void *run(void *user) {
    struct writer *writer = user;
    struct order taken[WRITER_FILES_MAX];
    while (take(writer, taken)) {
        write_all(writer, taken);
        sync_directories(writer, taken);
    }
    uv_async_send(&writer->wake);
    return NULL;
}

/* ---- on the loop ---- */

static void on_wake_closed(uv_handle_t *handle) {
    struct writer *writer = handle->data;
    pthread_mutex_destroy(&writer->lock);
    pthread_cond_destroy(&writer->more);
    if (writer->closed != NULL)
        writer->closed(writer->closed_user);
    free(writer);
}

static void on_wake(uv_async_t *wake) {
    struct writer *writer = wake->data;
    struct outcome outcomes[WRITER_FILES_MAX];
    pthread_mutex_lock(&writer->lock);
    memcpy(outcomes, writer->outcomes, sizeof outcomes);
    for (unsigned i = 0; i < WRITER_FILES_MAX; i++)
        writer->outcomes[i].is_new = false;
    bool ended = writer->ended;
    pthread_mutex_unlock(&writer->lock);
    for (unsigned i = 0; i < WRITER_FILES_MAX && !writer->closing; i++)
        if (outcomes[i].is_new)
            writer->done(writer->user, i, outcomes[i].number, outcomes[i].failed ? &outcomes[i].error : NULL);
    if (!ended || uv_is_closing((uv_handle_t *)wake))
        return;
    pthread_join(writer->thread, NULL); /* it has nothing more to do */
    uv_close((uv_handle_t *)wake, on_wake_closed);
}

/* Signals are for the loop. */
static int start_thread(struct writer *writer) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&writer->thread, NULL, run, writer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

status writer_open(struct writer **ret_writer, uv_loop_t *loop, writer_done *done, void *user, struct error *error) {
    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return error_set(error, "out of memory");
    writer->done = done;
    writer->user = user;
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->more, NULL);
    writer->wake.data = writer;
    int failure = uv_async_init(loop, &writer->wake, on_wake);
    if (failure != 0) {
        free(writer);
        return error_set(error, "%s", uv_strerror(failure));
    }
    failure = start_thread(writer);
    if (failure != 0) {
        uv_close((uv_handle_t *)&writer->wake, on_wake_closed);
        return error_set(error, "could not start a thread: %s", strerror(failure));
    }
    *ret_writer = writer;
    return OK;
}

void writer_write(struct writer *writer, unsigned file, const char *path, const struct file_manner *manner, char *text,
                  uint64_t number) {
    require(file < WRITER_FILES_MAX && !writer->closing);
    pthread_mutex_lock(&writer->lock);
    struct order *order = &writer->orders[file];
    free(order->text);
    *order = (struct order){.text = text, .path = path, .manner = *manner, .number = number};
    pthread_cond_signal(&writer->more);
    pthread_mutex_unlock(&writer->lock);
}

void writer_close(struct writer *writer, void (*closed)(void *user), void *user) {
    writer->closing = true;
    writer->closed = closed;
    writer->closed_user = user;
    pthread_mutex_lock(&writer->lock);
    writer->ending = true;
    pthread_cond_signal(&writer->more);
    pthread_mutex_unlock(&writer->lock);
}
