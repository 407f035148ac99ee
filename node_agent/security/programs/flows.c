/* Who exchanges how much with whom: packets of the containers' sockets, at the parent cgroup. Always lets the packet pass. */

static __always_inline void hm_mapped(u8 *to, u32 v4) {
  __builtin_memset(to, 0, 10);
  to[10] = to[11] = 0xff;
  __builtin_memcpy(to + 12, &v4, 4);
}

/* The container that the packet's socket belongs to; 0: none that we know. The parent's depth is looked for once, and kept. */
static __always_inline u64 hm_packet_owner(struct __sk_buff *skb, struct hm_cfg *cfg) {
  u32 level = cfg->level;
  if (!level) {
#pragma unroll
    for (int depth = 1; depth <= HM_MAX_LEVEL; depth++)
      if (bpf_skb_ancestor_cgroup_id(skb, depth) == cfg->parent)
        level = depth;
    if (!level)
      return 0;
    cfg->level = level;
  }
  return bpf_skb_ancestor_cgroup_id(skb, level + 1);
}

/* Whether this SYN opens a connection, and is no repetition of one that nobody answered.
 *
 * Whose the socket is, is kept with it, for hm_tcp: there the kernel does not tell. Accepted sockets inherit it. A SYN that goes out from a
 * socket which has it already is a repetition; hm_tcp takes it away when the socket begins to connect. What comes in goes to the listener,
 * which tells no connection from another: hm_tcp counts those, when they are established. */
static __always_inline int hm_opens(struct __sk_buff *skb, u64 cgroup, int out) {
  struct bpf_sock *sk = skb->sk;
  if (!sk)
    return out;
  sk = bpf_sk_fullsock(sk);
  if (!sk || sk->type != HM_SOCK_STREAM) /* made by hand, on a raw socket: each may be meant for somebody else */
    return out;
  u64 *owner = bpf_sk_storage_get(HM_MAP(OWNERS), sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!owner)
    return out;
  int first = !*owner;
  *owner = cgroup;
  return out && first;
}

static __always_inline void hm_count(struct hm_flow *flow, u64 bytes, u64 packets, int opens, int out) {
  if (out) {
    __sync_fetch_and_add(&flow->bytes_out, bytes);
    __sync_fetch_and_add(&flow->packets_out, packets);
    if (opens)
      __sync_fetch_and_add(&flow->connections_out, 1);
  } else {
    __sync_fetch_and_add(&flow->bytes_in, bytes);
    __sync_fetch_and_add(&flow->packets_in, packets);
  }
}

static __always_inline int hm_packet(struct __sk_buff *skb, int out) {
  struct hm_cfg *cfg = hm_cfg();
  struct hm_totals *totals = hm_totals();
  if (!cfg || !totals)
    return 1;
  struct hm_flow_key key = {};
  key.cgroup = hm_packet_owner(skb, cfg);
  if (!key.cgroup)
    return 1;

  u8 *head = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  u32 transport;
  if (skb->protocol == __constant_htons(ETH_P_IP)) {
    if (head + 20 > end)
      return 1;
    hm_mapped(key.peer, *(u32 *)(head + (out ? 16 : 12)));
    key.protocol = head[9];
    transport = (head[0] & 15) * 4;
  } else if (skb->protocol == __constant_htons(ETH_P_IPV6)) {
    if (head + 40 > end)
      return 1;
    __builtin_memcpy(key.peer, head + (out ? 24 : 8), 16);
    key.protocol = head[6]; /* behind extension headers stands another one: such packets are counted under the first header's number */
    transport = 40;
  } else {
    return 1;
  }

  int opens = 0;
  if (key.protocol == IPPROTO_TCP) {
    u8 *tcp = head + transport;
    asm volatile("" : "+r"(tcp)); /* else the compiler checks one pointer and reads through another, which the verifier cannot follow */
    if (tcp + 14 <= end && (tcp[13] & 0x12) == 0x02) /* SYN without ACK */
      opens = hm_opens(skb, key.cgroup, out);
  }

  u64 bytes = skb->len, packets = skb->gso_segs;
  if (!packets)
    packets = 1;
  hm_count(&totals->all, bytes, packets, opens, out);
  struct hm_flow *flow = hm_flow_of(&key);
  if (flow)
    hm_count(flow, bytes, packets, opens, out);
  return 1;
}

int hm_ingress(struct __sk_buff *skb) { return hm_packet(skb, 0); }

int hm_egress(struct __sk_buff *skb) { return hm_packet(skb, 1); }
