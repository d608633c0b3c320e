/* The program on a device that is heddle's alone. */
#include "sockets.h"

SECTION("xdp.frags") int heddle_all(struct xdp_md *context)
{
    struct counters *counters = count();
    return counters ? take(context, counters) : XDP_DROP;
}
