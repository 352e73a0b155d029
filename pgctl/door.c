#include "pgctl/door.h"

#include <stdio.h>
#include <stdlib.h>

#define AGAIN_MS 200 /* when so many wait before it that not even the kernel takes us */

/* SSLRequest: length and code, in network order. One byte answers it. */
static char first_word[] = {0, 0, 0, 8, 0x04, (char)0xd2, 0x16, 0x2f};

struct knock {
    uv_pipe_t pipe;
    uv_connect_t connect;
    uv_write_t write;
    char answer[4];
    struct door *door; /* NULL once forgotten */
};

struct door {
    uv_loop_t *loop;
    char path[108];
    struct knock *knock; /* the one under way, unless we wait to try again */
    uv_timer_t *again;
    door_opened *opened; /* NULL when none is under way */
    void *user;
};

static void try(struct door *door);

static void freed(uv_handle_t *handle) { free(handle->data); }

static void forget(struct door *door) {
    uv_timer_stop(door->again);
    if (door->knock == NULL)
        return;
    door->knock->door = NULL;
    uv_close((uv_handle_t *)&door->knock->pipe, freed);
    door->knock = NULL;
}

static void try_again(uv_timer_t *timer) { try(timer->data); }

static void answered(struct door *door, long code) {
    door_opened *opened = door->opened;
    forget(door);
    if (code == UV_EAGAIN) {
        uv_timer_start(door->again, try_again, AGAIN_MS, 0);
        return;
    }
    door->opened = NULL;
    opened(door->user);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret_buffer) {
    struct knock *knock = handle->data;
    (void)size;
    *ret_buffer = uv_buf_init(knock->answer, sizeof knock->answer);
}

static void read_answer(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer) {
    struct knock *knock = stream->data;
    (void)buffer;
    if (size != 0 && knock->door != NULL)
        answered(knock->door, size);
}

static void written(uv_write_t *write, int code) {
    struct knock *knock = write->handle->data;
    if (code < 0 && knock->door != NULL)
        answered(knock->door, code);
}

static void connected(uv_connect_t *connect, int code) {
    struct knock *knock = connect->handle->data;
    uv_buf_t word = uv_buf_init(first_word, sizeof first_word);
    if (knock->door == NULL)
        return;
    if (code == 0)
        code = uv_read_start(connect->handle, give_buffer, read_answer);
    if (code == 0)
        code = uv_write(&knock->write, connect->handle, &word, 1, written);
    if (code < 0)
        answered(knock->door, code);
}

static void try(struct door *door) {
    struct knock *knock = calloc(1, sizeof *knock);
    if (knock == NULL) {
        uv_timer_start(door->again, try_again, AGAIN_MS, 0);
        return;
    }
    uv_pipe_init(door->loop, &knock->pipe, 0);
    knock->pipe.data = knock;
    knock->door = door;
    door->knock = knock;
    uv_pipe_connect(&knock->connect, &knock->pipe, door->path, connected);
}

/* ---- the interface ---- */

struct door *door_new(uv_loop_t *loop, const char *socket_directory, uint16_t port) {
    struct door *door = calloc(1, sizeof *door);
    if (door != NULL)
        door->again = malloc(sizeof *door->again);
    if (door == NULL || door->again == NULL) {
        free(door);
        return NULL;
    }
    door->loop = loop;
    snprintf(door->path, sizeof door->path, "%s/.s.PGSQL.%u", socket_directory, port);
    uv_timer_init(loop, door->again);
    door->again->data = door;
    return door;
}

void door_knock(struct door *door, door_opened *opened, void *user) {
    door->opened = opened;
    door->user = user;
    try(door);
}

bool door_knocking(const struct door *door) { return door->opened != NULL; }

void door_drop(struct door *door) {
    forget(door);
    door->opened = NULL;
}

void door_free(struct door *door) {
    if (door == NULL)
        return;
    door_drop(door);
    door->again->data = door->again;
    uv_close((uv_handle_t *)door->again, freed);
    free(door);
}
