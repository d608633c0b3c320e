/* The program on a device that the host uses, too: it takes what is heddle's, and leaves everything else to the kernel.
 * What is heddle's is said by maps, which control writes while frames come (dataplane/src/device/xdp/rule.rs): their keys
 * and values are the structs here, byte for byte. */
#include "headers.h"
#include "sockets.h"

/* Which kinds of rules there are: what no rule needs is not looked up. */
enum { STATIONS = 1, ADDRESSES = 2 };

struct map kinds SECTION("maps") = { MAP_ARRAY, sizeof(u32), sizeof(u32), 1, 0 };

/* Stations of heddle's, by address: six bytes and two zeroes. */
struct map stations SECTION("maps") = { MAP_HASH, sizeof(u64), sizeof(u32), 8192, NO_PREALLOC };

/* An IPv6 address, or an IPv4 address as an IPv4-mapped one (RFC 4291, 2.5.5.2). */
struct address {
    u32 words[4];
};

/* What may be heddle's of the packets to an address. */
struct local {
    u32 services;
    /* Of ESP, security parameter indices that are `spi_value` under `spi_mask`. */
    u32 spi_mask;
    u32 spi_value;
};

enum { TUNNELS = 1, PORTS = 2, SEALED = 4 };

struct map addresses SECTION("maps") = { MAP_HASH, sizeof(struct address), sizeof(struct local), 512, NO_PREALLOC };

/* VXLAN that is heddle's. */
struct tunnel {
    struct address address;
    u32 vni;
    u16 port;
    u16 zero;
};

struct map tunnels SECTION("maps") = { MAP_HASH, sizeof(struct tunnel), sizeof(u32), 8192, NO_PREALLOC };

/* The ports of an address that are heddle's: a bit each, lowest first, in blocks. A range costs nothing that way. */
struct block {
    struct address address;
    u8 protocol;
    u8 number;
    u16 zero;
};

enum { BLOCK_PORTS = 2048 };

struct bits {
    u8 bytes[BLOCK_PORTS / 8];
};

struct map ports SECTION("maps") = { MAP_HASH, sizeof(struct block), sizeof(struct bits), 2048, NO_PREALLOC };

/* What fragments of one packet have in common (RFC 791, 3.2; RFC 8200, 4.5, where the protocol doesn't belong to it). */
struct packet {
    struct address source;
    struct address destination;
    u32 identification;
    u32 protocol;
};

/* When the first fragment of a packet of heddle's came. */
struct map fragments SECTION("maps") = { MAP_LRU_HASH, sizeof(struct packet), sizeof(u64), 4096, 0 };

/* Fragments that come later are not waited for (net.ipv4.ipfrag_time). */
enum { FRAGMENT_SECONDS = 30 };

/* More extension headers than anybody sends, before and after a fragment header. */
enum { MOST_EXTENSIONS = 4 };

enum whose { OTHERS, OURS, MALFORMED };

/* Why there is no protocol. */
enum { CUT_SHORT = -1, IN_TRANSIT = -2 };

INLINE enum whose whose_frame(struct reader *frame, u32 kinds);
INLINE enum whose whose_ipv4(struct reader *frame);
INLINE enum whose whose_ipv6(struct reader *frame);
INLINE int after_extensions(struct reader *frame, u8 protocol);
INLINE enum whose whose_packet(struct reader *frame, const struct local *local, const struct packet *packet,
    u8 protocol, u32 offset, u32 more);
INLINE enum whose whose_transport(
    struct reader *frame, const struct local *local, const struct packet *packet, u8 protocol, u32 more);
INLINE enum whose whose_datagram(
    struct reader *frame, const struct local *local, const struct packet *packet, u16 port);
INLINE int is_our_port(const struct packet *packet, u8 protocol, u16 port);
INLINE int is_our_spi(const struct local *local, u32 spi);

SECTION("xdp.frags") int heddle_rules(struct xdp_md *context)
{
    u32 first = 0;
    u32 *rules = map_lookup(&kinds, &first);
    struct counters *counters = count();
    if (!rules || !counters)
        return XDP_PASS;
    struct reader frame = { (void *)(long)context->data, (void *)(long)context->data_end, 0, READABLE };
    enum whose whose = whose_frame(&frame, *rules);
    if (whose == OURS)
        return take(context, counters);
    counters->passed++;
    counters->malformed += whose == MALFORMED;
    return XDP_PASS;
}

/* Group frames are for the host, too, and can't be given to both: heddle has its own tap for them. */
INLINE enum whose whose_frame(struct reader *frame, u32 kinds)
{
    struct ethernet *ethernet = next(frame, sizeof(*ethernet));
    if (!ethernet)
        return MALFORMED;
    if (ethernet->destination[0] & 1)
        return OTHERS;
    if (kinds & STATIONS) {
        u64 station = 0;
        __builtin_memcpy(&station, ethernet->destination, sizeof(ethernet->destination));
        if (map_lookup(&stations, &station))
            return OURS;
    }
    if (!(kinds & ADDRESSES))
        return OTHERS;
    u16 type = ethernet->type;
    /* The addresses of rules are the device's own. In a VLAN they are somebody else's; tags of VLAN 0 carry only a
     * priority. */
    for (int tags = 0; tags < 2; tags++) {
        if (type != NET16(VLAN) && type != NET16(SERVICE_VLAN))
            break;
        struct tag *tag = next(frame, sizeof(*tag));
        if (!tag)
            return MALFORMED;
        if (tag->control & NET16(0x0fff))
            return OTHERS;
        type = tag->type;
    }
    if (type == NET16(IPV4))
        return whose_ipv4(frame);
    if (type == NET16(IPV6))
        return whose_ipv6(frame);
    return OTHERS;
}

INLINE enum whose whose_ipv4(struct reader *frame)
{
    u32 start = frame->at;
    struct ipv4 *ipv4 = next(frame, sizeof(*ipv4));
    if (!ipv4)
        return MALFORMED;
    u32 header_length = (ipv4->version_length & 0x0f) * 4;
    u32 total_length = NET16(ipv4->total_length);
    if (ipv4->version_length >> 4 != 4 || header_length < sizeof(*ipv4) || total_length < header_length)
        return MALFORMED;
    frame->at = start + header_length;
    frame->limit = start + total_length;
    struct packet packet = {
        .source = { { 0, 0, NET32(0xffff), ipv4->source } },
        .destination = { { 0, 0, NET32(0xffff), ipv4->destination } },
        .identification = ipv4->identification,
        .protocol = ipv4->protocol,
    };
    struct local *local = map_lookup(&addresses, &packet.destination);
    if (!local)
        return OTHERS;
    u32 offset = ipv4->fragment & NET16(IPV4_OFFSET), more = ipv4->fragment & NET16(IPV4_MORE);
    return whose_packet(frame, local, &packet, ipv4->protocol, offset, more);
}

INLINE enum whose whose_ipv6(struct reader *frame)
{
    struct ipv6 *ipv6 = next(frame, sizeof(*ipv6));
    if (!ipv6 || (ipv6->version_class_flow & NET32(0xf0000000)) != NET32(0x60000000))
        return MALFORMED;
    frame->limit = frame->at + NET16(ipv6->payload_length);
    struct packet packet = { .protocol = 0 };
    __builtin_memcpy(&packet.source, ipv6->source, sizeof(packet.source));
    __builtin_memcpy(&packet.destination, ipv6->destination, sizeof(packet.destination));
    struct local *local = map_lookup(&addresses, &packet.destination);
    if (!local)
        return OTHERS;
    int protocol = after_extensions(frame, ipv6->next_header);
    u32 offset = 0, more = 0;
    if (protocol == FRAGMENT) {
        struct fragment *fragment = next(frame, sizeof(*fragment));
        if (!fragment)
            return MALFORMED;
        offset = fragment->offset_more & NET16(IPV6_OFFSET);
        more = fragment->offset_more & NET16(IPV6_MORE);
        packet.identification = fragment->identification;
        /* What follows a later fragment's is not a header. */
        protocol = offset ? fragment->next_header : after_extensions(frame, fragment->next_header);
    }
    if (protocol < 0)
        return protocol == IN_TRANSIT ? OTHERS : MALFORMED;
    return whose_packet(frame, local, &packet, protocol, offset, more);
}

/* Reads over extension headers: the protocol of what follows them. */
INLINE int after_extensions(struct reader *frame, u8 protocol)
{
    for (int headers = 0; headers < MOST_EXTENSIONS; headers++) {
        if (protocol != HOP_BY_HOP && protocol != ROUTING && protocol != DESTINATION_OPTIONS)
            break;
        struct extension *extension = next(frame, sizeof(*extension));
        if (!extension)
            return CUT_SHORT;
        /* The host is not where it ends. */
        if (protocol == ROUTING && extension->segments_left)
            return IN_TRANSIT;
        protocol = extension->next_header;
        frame->at += extension->length * 8;
    }
    return protocol;
}

/* The first fragment decides, and the others follow it; a decision that was not seen leaves them to the kernel. */
INLINE enum whose whose_packet(struct reader *frame, const struct local *local, const struct packet *packet,
    u8 protocol, u32 offset, u32 more)
{
    if (offset) {
        u64 *first = map_lookup(&fragments, packet);
        return first && nanoseconds() - *first < FRAGMENT_SECONDS * 1000000000ull ? OURS : OTHERS;
    }
    enum whose whose = whose_transport(frame, local, packet, protocol, more);
    if (more && whose == OURS) {
        u64 now = nanoseconds();
        map_update(&fragments, packet, &now, 0);
    } else if (more) {
        /* The same number may have been ours before. */
        map_delete(&fragments, packet);
    }
    return whose;
}

INLINE enum whose whose_transport(
    struct reader *frame, const struct local *local, const struct packet *packet, u8 protocol, u32 more)
{
    if (protocol == ESP) {
        struct esp *esp = next(frame, sizeof(*esp));
        return !esp ? MALFORMED : is_our_spi(local, esp->spi) ? OURS : OTHERS;
    }
    if (protocol != TCP && protocol != UDP)
        return OTHERS;
    u32 start = frame->at;
    struct ports *header = next(frame, sizeof(*header));
    if (!header)
        return MALFORMED;
    u16 port = header->destination;
    if (local->services & PORTS && is_our_port(packet, protocol, port))
        return OURS;
    if (protocol == TCP)
        return OTHERS;
    struct udp_rest *rest = next(frame, sizeof(*rest));
    if (!rest)
        return MALFORMED;
    u32 end = start + NET16(rest->length);
    /* The first fragment of a datagram has less than all of it. */
    if (end < frame->at || (end > frame->limit && !more))
        return MALFORMED;
    if (end < frame->limit)
        frame->limit = end;
    return whose_datagram(frame, local, packet, port);
}

/* VXLAN in a VNI of heddle's, or ESP with an SPI of heddle's. */
INLINE enum whose whose_datagram(
    struct reader *frame, const struct local *local, const struct packet *packet, u16 port)
{
    /* The two headers are equally long; what is shorter is neither. */
    if (!(local->services & (TUNNELS | SEALED)) || frame->at + sizeof(struct vxlan) > frame->limit)
        return OTHERS;
    u32 *words = next(frame, sizeof(struct vxlan));
    if (!words)
        return MALFORMED;
    u32 first = words[0], second = words[1];
    if (port == NET16(NAT_TRAVERSAL) && first && is_our_spi(local, first))
        return OURS;
    if (!(local->services & TUNNELS && first & NET32(VXLAN_VNI_VALID)))
        return OTHERS;
    struct tunnel tunnel = { packet->destination, second & NET32(0xffffff00), port, 0 };
    return map_lookup(&tunnels, &tunnel) ? OURS : OTHERS;
}

INLINE int is_our_port(const struct packet *packet, u8 protocol, u16 port)
{
    u32 number = NET16(port);
    struct block block = { packet->destination, protocol, number / BLOCK_PORTS, 0 };
    struct bits *bits = map_lookup(&ports, &block);
    u32 bit = number % BLOCK_PORTS;
    return bits && bits->bytes[bit / 8] >> bit % 8 & 1;
}

INLINE int is_our_spi(const struct local *local, u32 spi)
{
    return local->services & SEALED && (spi & local->spi_mask) == local->spi_value;
}
