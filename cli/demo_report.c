#include "cli/demo_report.h"

#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

#define BUCKETS    20 /* the first up to 0.25 ms, each twice the one before, the last without end (from 65 s) */
#define BUCKET_ONE (NSEC_PER_MSEC / 4)
#define BAR_WIDTH  18

static struct gap longer_gap(struct gap a, struct gap b) { return b.ended - b.began > a.ended - a.began ? b : a; }

struct gap acks_longest_gap(const struct ledger_ack *acks, size_t count, nsec from, nsec until) {
    struct gap longest = {from, from};
    nsec before = from;
    for (size_t i = 0; i < count; i++) {
        if (acks[i].acknowledged_at > from)
            longest = longer_gap(longest, (struct gap){before, acks[i].acknowledged_at});
        before = acks[i].acknowledged_at;
    }
    return longer_gap(longest, (struct gap){before, until > before ? until : before});
}

static int compare_outages(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

uint64_t rounds_outage_median(const struct demo_round *rounds, unsigned count) {
    uint64_t outages[ROUNDS_MAX];
    for (unsigned i = 0; i < count; i++)
        outages[i] = rounds[i].outage_ms;
    qsort(outages, count, sizeof *outages, compare_outages);
    return count > 0 ? outages[count / 2] : 0;
}

uint64_t rounds_outage_worst(const struct demo_round *rounds, unsigned count) {
    uint64_t worst = 0;
    for (unsigned i = 0; i < count; i++)
        worst = rounds[i].outage_ms > worst ? rounds[i].outage_ms : worst;
    return worst;
}

static nsec latency(const struct ledger_ack *ack) { return ack->acknowledged_at - ack->sent_at; }

static unsigned bucket_of(nsec time) {
    unsigned bucket = 0;
    for (nsec end = BUCKET_ONE; bucket < BUCKETS - 1 && time >= end; end *= 2)
        bucket++;
    return bucket;
}

/* "0.25 ms", "64 ms", "2 s": seven columns. */
static void print_time(FILE *out, nsec time) {
    double ms = (double)time / (double)NSEC_PER_MSEC;
    if (ms < 1)
        fprintf(out, "%4.2f ms", ms);
    else if (ms < 1000)
        fprintf(out, "%4.0f ms", ms);
    else
        fprintf(out, "%4.3g s ", ms / 1000);
}

void report_histogram(FILE *out, const struct ledger_ack *acks, size_t count) {
    size_t buckets[BUCKETS] = {0}, largest = 0;
    unsigned first = BUCKETS, last = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned bucket = bucket_of(latency(&acks[i]));
        buckets[bucket]++;
        first = bucket < first ? bucket : first;
        last = bucket > last ? bucket : last;
        largest = buckets[bucket] > largest ? buckets[bucket] : largest;
    }
    for (unsigned i = first; i <= last && i < BUCKETS; i++) {
        size_t bar = (buckets[i] * BAR_WIDTH + largest - 1) / largest; /* rounded up: a single row is seen */
        fprintf(out, i < BUCKETS - 1 ? "  under " : "  above ");
        print_time(out, BUCKET_ONE << (i < BUCKETS - 1 ? i : i - 1));
        fprintf(out, " %7zu%s%.*s\n", buckets[i], bar ? " " : "", (int)bar, "##################");
    }
}

static int compare_latencies(const void *left, const void *right) {
    nsec a = latency(left), b = latency(right);
    return (a > b) - (a < b);
}

struct latencies {
    nsec median, p99, worst;
};

static struct latencies latencies_of(const struct ledger_ack *acks, size_t count) {
    if (count == 0)
        return (struct latencies){0};
    struct ledger_ack *sorted = malloc(count * sizeof *sorted);
    require(sorted != NULL);
    memcpy(sorted, acks, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_latencies);
    struct latencies found = {latency(&sorted[count / 2]), latency(&sorted[count * 99 / 100]),
                              latency(&sorted[count - 1])};
    free(sorted);
    return found;
}

static void print_rounds(FILE *out, const struct demo_report *report) {
    fprintf(out, "\nround  fault       primary   outage  redundant  lost\n");
    for (unsigned i = 0; i < report->rounds_count; i++) {
        const struct demo_round *round = &report->rounds[i];
        fprintf(out, "%5u  %-10s  %s -> %s  ", i + 1, round->fault, round->from, round->to);
        print_time(out, msec(round->outage_ms));
        fprintf(out, "  %7.1f s  %4zu\n", (double)round->redundant_ms / 1000, round->lost);
    }
}

void report_print(FILE *out, const struct demo_report *report) {
    const struct latencies times = latencies_of(report->acks, report->acks_count);
    if (report->rounds_count > 0)
        print_rounds(out, report);
    if (report->acks_count > 0) {
        fprintf(out, "\nFrom sending a row to its acknowledgement:\n");
        report_histogram(out, report->acks, report->acks_count);
        fprintf(out, "  half within %.1f ms, 99 %% within %.1f ms\n", (double)times.median / NSEC_PER_MSEC,
                (double)times.p99 / NSEC_PER_MSEC);
    }
    if (report->rounds_count == 0)
        return;
    fprintf(out, "\n%zu rows acknowledged, %zu lost; outage: median %llu ms, worst %llu ms, in %u round%s.\n",
            report->acks_count, report->lost,
            (unsigned long long)rounds_outage_median(report->rounds, report->rounds_count),
            (unsigned long long)rounds_outage_worst(report->rounds, report->rounds_count), report->rounds_count,
            report->rounds_count == 1 ? "" : "s");
}

static json_t *round_json(const struct demo_round *round) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:s}", "fault", round->fault, "outage_ms",
                     (json_int_t)round->outage_ms, "lost", (json_int_t)round->lost, "redundant_ms",
                     (json_int_t)round->redundant_ms, "next_write_ms", (json_int_t)round->next_write_ms, "from",
                     round->from, "to", round->to);
}

static double tenths_of_ms(nsec time) { return (double)(time / (NSEC_PER_MSEC / 10)) / 10; }

json_t *report_json(const struct demo_report *report) {
    const struct latencies times = latencies_of(report->acks, report->acks_count);
    json_t *rounds = json_array();
    for (unsigned i = 0; i < report->rounds_count; i++)
        json_array_append_new(rounds, round_json(&report->rounds[i]));
    json_t *all = json_pack(
        "{s:o, s:i, s:I, s:I, s:I, s:I, s:{s:f, s:f, s:f}}", "rounds", rounds, "members", (int)report->members,
        "acknowledged", (json_int_t)report->acks_count, "lost", (json_int_t)report->lost, "outage_median_ms",
        (json_int_t)rounds_outage_median(report->rounds, report->rounds_count), "outage_worst_ms",
        (json_int_t)rounds_outage_worst(report->rounds, report->rounds_count), "latency_ms", "median",
        tenths_of_ms(times.median), "p99", tenths_of_ms(times.p99), "worst", tenths_of_ms(times.worst));
    require(all != NULL);
    if (report->problem[0])
        json_object_set_new(all, "problem", json_string(report->problem));
    return all;
}
