/* What both programs do with frames that are heddle's: they go to the AF_XDP socket of the queue that they came in by, or
 * nowhere if that has none. A dead heddle means silence, not the answers of the host's stack. */
#pragma once

#include "bpf.h"

/* Sockets by receive queue. */
struct map sockets SECTION("maps") = { MAP_XSKMAP, sizeof(u32), sizeof(u32), 256, 0 };

/* What happened to frames, counted per CPU. Malformed ones are passed, too. */
struct counters {
    u64 taken;
    u64 passed;
    u64 unserved;
    u64 malformed;
};

struct map counters SECTION("maps") = { MAP_PERCPU_ARRAY, sizeof(u32), sizeof(struct counters), 1, 0 };

INLINE struct counters *count(void)
{
    u32 first = 0;
    return map_lookup(&counters, &first);
}

INLINE int take(struct xdp_md *context, struct counters *count)
{
    int action = redirect_map(&sockets, context->rx_queue_index, XDP_DROP);
    if (action == XDP_REDIRECT)
        count->taken++;
    else
        count->unserved++;
    return action;
}

/* No helper of these asks for it, but kernels that don't find it print a notice. */
char licence[] SECTION("license") = "Dual MIT/GPL";
