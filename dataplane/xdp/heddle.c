/* The program on a device of which heddle takes all or some frames.
 *
 * What is heddle's goes to the AF_XDP socket of the queue that it came in by, or nowhere if there is none: a
 * dead heddle means silence, not the answers of the host's stack. Everything else is the kernel's. */
#include "bpf.h"

/* Sockets by receive queue. */
struct map sockets SECTION("maps") = { MAP_XSKMAP, sizeof(u32), sizeof(u32), 256, 0 };

/* What happened to frames, counted per CPU. */
struct counters {
    u64 taken;
    u64 passed;
    u64 unserved;
    u64 malformed;
};

struct map counters SECTION("maps") = { MAP_PERCPU_ARRAY, sizeof(u32), sizeof(struct counters), 1, 0 };

SECTION("xdp.frags") int heddle(struct xdp_md *frame)
{
    u32 first = 0;
    struct counters *count = map_lookup(&counters, &first);
    if (!count)
        return XDP_ABORTED;
    int action = redirect_map(&sockets, frame->rx_queue_index, XDP_DROP);
    if (action == XDP_REDIRECT)
        count->taken++;
    else
        count->unserved++;
    return action;
}

/* None of the helpers used asks for it; kernels print a notice when it is missing. */
char licence[] SECTION("license") = "Dual MIT/GPL";
