/* What all programs share: the maps and the layout of what lies in them. node_agent/security/maps.py is its mirror: change both, and
 * LAYOUT there. Only UAPI types: the headers at hand need not be those of the running kernel.
 *
 * The loader makes the maps and hands their descriptors over as constants (HM_*_FD), hence no map definitions here. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>

#define HM_MAP(name) ((void *)bpf_pseudo_fd(1, HM_##name##_FD))
#define HM_MAX_LEVEL 12  /* the deepest parent that is found; a container's is one below */
#define HM_NAME 128      /* bytes of a program's file name that are kept */
#define HM_SOCK_STREAM 1 /* of linux/net.h and linux/socket.h, which are no UAPI */
#define HM_AF_INET6 10

enum { HM_EXEC = 1, HM_TCP = 2 };

struct hm_cfg {
  u64 parent;     /* id of the cgroup above all of our containers */
  u32 level;      /* its depth in the kernel's tree; 0: not found yet */
  u32 mode;       /* 1 audit, 2 enforce */
  u32 rate;       /* events a second that one CPU may send, of each kind */
  u32 burst;
  u8 digest[32];  /* of what was loaded */
};

struct hm_flow_key {
  u64 cgroup;
  u8 peer[16]; /* IPv6, or IPv4 mapped into it */
  u32 protocol;
  u32 unused;
};

struct hm_flow {
  u64 bytes_in, bytes_out, packets_in, packets_out, connections_in, connections_out;
};

struct hm_totals {
  struct hm_flow all;
  u64 execs, events;
  u64 limited; /* events that the rate did not allow */
  u64 overrun; /* events that the full ring buffer had no room for: the agent does not keep up */
};

struct hm_bucket {
  u64 tokens; /* in billionths */
  u64 filled; /* when, in ns */
};

struct hm_exec_event {
  u32 kind, pid;
  u64 time, cgroup;
  u32 uid, size;
  char comm[16];
  char name[HM_NAME];
};

struct hm_tcp_event {
  u32 kind, family;
  u64 time, cgroup;
  u8 local[16], peer[16];
  u16 local_port, peer_port;
  u8 before, after, unused[2];
};

static __always_inline struct hm_cfg *hm_cfg(void) {
  u32 first = 0;
  return bpf_map_lookup_elem(HM_MAP(CFG), &first);
}

static __always_inline struct hm_totals *hm_totals(void) {
  u32 first = 0;
  return bpf_map_lookup_elem(HM_MAP(TOTALS), &first);
}

/* Whether this CPU may send one more event of this kind. What it may not send is counted. */
static __always_inline int hm_may_send(struct hm_cfg *cfg, struct hm_totals *totals, u32 kind) {
  struct hm_bucket *bucket = bpf_map_lookup_elem(HM_MAP(BUCKETS), &kind);
  if (!bucket)
    return 0;
  u64 now = bpf_ktime_get_ns(), most = (u64)cfg->burst * 1000000000ULL, passed = now - bucket->filled;
  if (passed > 1000000000ULL * 60)
    passed = 1000000000ULL * 60;
  u64 tokens = bucket->tokens + passed * cfg->rate;
  if (tokens > most)
    tokens = most;
  bucket->filled = now;
  if (tokens < 1000000000ULL) {
    bucket->tokens = tokens;
    __sync_fetch_and_add(&totals->limited, 1);
    return 0;
  }
  bucket->tokens = tokens - 1000000000ULL;
  return 1;
}

/* Where this container and peer are counted; NULL only without memory. */
static __always_inline struct hm_flow *hm_flow_of(struct hm_flow_key *key) {
  struct hm_flow *flow = bpf_map_lookup_elem(HM_MAP(FLOWS), key);
  if (flow)
    return flow;
  struct hm_flow none = {};
  bpf_map_update_elem(HM_MAP(FLOWS), key, &none, BPF_NOEXIST);
  return bpf_map_lookup_elem(HM_MAP(FLOWS), key);
}
