/* Headers as they lie on the wire, and how a program reads them. Multi-byte fields are in network order. */
#pragma once

#include "bpf.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error the object is built for little-endian hosts
#endif

#define NET16(host) ((u16)__builtin_bswap16(host))
#define NET32(host) ((u32)__builtin_bswap32(host))

/* IEEE 802.3, 3.2. */
struct ethernet {
    u8 destination[6];
    u8 source[6];
    u16 type;
};

/* IEEE 802.1Q, 9.6: priority, and the VLAN in the low 12 bits; what follows. */
struct tag {
    u16 control;
    u16 type;
};

enum { VLAN = 0x8100, SERVICE_VLAN = 0x88a8, IPV4 = 0x0800, IPV6 = 0x86dd };

/* RFC 791, 3.1. */
struct ipv4 {
    u8 version_length;
    u8 service;
    u16 total_length;
    u16 identification;
    u16 fragment;
    u8 time_to_live;
    u8 protocol;
    u16 checksum;
    u32 source;
    u32 destination;
};

/* The fields of `fragment`. */
enum { IPV4_MORE = 0x2000, IPV4_OFFSET = 0x1fff };

/* RFC 8200, 3. */
struct ipv6 {
    u32 version_class_flow;
    u16 payload_length;
    u8 next_header;
    u8 hop_limit;
    u32 source[4];
    u32 destination[4];
};

/* RFC 8200, 4.3, 4.4 and 4.6: the length is in units of 8 bytes, without the first. The last two fields are those of a
 * routing header. */
struct extension {
    u8 next_header;
    u8 length;
    u8 type;
    u8 segments_left;
    u32 data;
};

/* RFC 8200, 4.5. */
struct fragment {
    u8 next_header;
    u8 reserved;
    u16 offset_more;
    u32 identification;
};

/* The fields of `offset_more`. */
enum { IPV6_MORE = 0x0001, IPV6_OFFSET = 0xfff8 };

enum { HOP_BY_HOP = 0, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44, ESP = 50, DESTINATION_OPTIONS = 60 };

/* The ports, with which TCP (RFC 9293, 3.1) and UDP (RFC 768) begin. */
struct ports {
    u16 source;
    u16 destination;
};

/* What follows the ports in UDP. */
struct udp_rest {
    u16 length;
    u16 checksum;
};

/* RFC 4303, 2. */
struct esp {
    u32 spi;
    u32 sequence_number;
};

/* RFC 3948: ESP in UDP, beside IKE, which has zeroes where ESP has its SPI. */
enum { NAT_TRAVERSAL = 4500 };

/* RFC 7348, 5: flags, and the VNI in the upper 24 bits. */
struct vxlan {
    u32 flags;
    u32 vni;
};

enum { VXLAN_VNI_VALID = 0x08000000 };

/* Where reading of a frame is. */
struct reader {
    void *data;
    void *data_end;
    /* What is read next, from the start of the frame. */
    u32 at;
    /* Where the packet ends by its own length. */
    u32 limit;
};

/* No header that is looked at begins beyond this; the verifier wants to know. */
enum { READABLE = 4096 };

/* The next `length` bytes, or nothing if they aren't all there. */
INLINE void *next(struct reader *reader, u32 length)
{
    u32 at = reader->at;
    if (at > READABLE || at + length > reader->limit)
        return 0;
    void *header = reader->data + at;
    if (header + length > reader->data_end)
        return 0;
    reader->at = at + length;
    return header;
}
