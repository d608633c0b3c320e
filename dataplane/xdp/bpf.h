/* The kernel's side of an XDP program (linux/bpf.h), as far as both programs use it. It is written down here so that the
 * object depends on nothing but this directory and the compiler; all of it is stable interface. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { XDP_PASS = 2, XDP_DROP = 1, XDP_REDIRECT = 4 };

/* The first buffer of the frame is what lies between data and data_end. */
struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LRU_HASH = 9, MAP_XSKMAP = 17 };

/* Entries of a hash are allocated when they are made. */
enum { NO_PREALLOC = 1 };

/* What the loader finds in the section "maps". */
struct map {
    u32 type;
    u32 key_size;
    u32 value_size;
    u32 max_entries;
    u32 flags;
};

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* Helpers are called by their number. */
static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const map_update)(const void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(const void *map, const void *key) = (void *)3;
static u64 (*const nanoseconds)(void) = (void *)5;
static long (*const redirect_map)(const void *map, u64 key, u64 flags) = (void *)51;
