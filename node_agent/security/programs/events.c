/* What the containers do: programs that they start, connections that open and close. */

struct hm_exec_args { /* /sys/kernel/tracing/events/sched/sched_process_exec/format */
  u64 common;
  u32 name; /* where the file name is: offset in the low half, size in the high one */
  u32 pid, old_pid;
};

static __always_inline u64 hm_task_owner(struct hm_cfg *cfg) {
  u32 level = cfg->level;
  if (!level) {
#pragma unroll
    for (int depth = 1; depth <= HM_MAX_LEVEL; depth++)
      if (bpf_get_current_ancestor_cgroup_id(depth) == cfg->parent)
        level = depth;
    if (!level)
      return 0;
    cfg->level = level;
  }
  if (bpf_get_current_ancestor_cgroup_id(level) != cfg->parent)
    return 0;
  return bpf_get_current_ancestor_cgroup_id(level + 1);
}

/* What is attached to the tracepoint. It stays when everything else is replaced, for such a link takes no other program: two of them would see
 * what begins while one takes over from the other. Change it, and LAYOUT must change, too. */
int hm_exec(struct hm_exec_args *args) {
  bpf_tail_call_(HM_MAP(ACTING), args, 0);
  return 0;
}

/* The task's name is that of the file by now, so applets which busybox starts by way of /proc/self/exe are all called `exe`: what they are is in
 * argv[0], which is to be had only by a second hook (sys_enter_execve) or through the kernel's own structures. Neither is worth it. */
int hm_exec_acts(struct hm_exec_args *args) {
  struct hm_cfg *cfg = hm_cfg();
  struct hm_totals *totals = hm_totals();
  if (!cfg || !totals)
    return 0;
  u64 cgroup = hm_task_owner(cfg);
  if (!cgroup)
    return 0;
  __sync_fetch_and_add(&totals->execs, 1);
  if (!hm_may_send(cfg, totals, 0))
    return 0;
  struct hm_exec_event *event = bpf_ringbuf_reserve(HM_MAP(EVENTS), sizeof(*event), 0);
  if (!event) {
    __sync_fetch_and_add(&totals->overrun, 1);
    return 0;
  }
  __builtin_memset(event, 0, sizeof(*event));
  event->kind = HM_EXEC;
  event->time = bpf_ktime_get_ns();
  event->cgroup = cgroup;
  event->pid = bpf_get_current_pid_tgid() >> 32;
  event->uid = (u32)bpf_get_current_uid_gid();
  bpf_get_current_comm(event->comm, sizeof(event->comm));
  long size = bpf_probe_read_kernel_str(event->name, sizeof(event->name), (char *)args + (args->name & 0xffff));
  event->size = size > 0 ? size - 1 : 0;
  __sync_fetch_and_add(&totals->events, 1);
  bpf_ringbuf_submit(event, 0);
  return 0;
}

/* Opened, begins to close, closed: the states between say nothing more to a person, and would double what a connection costs. */
static __always_inline int hm_tells(u32 before, u32 after) {
  return after == BPF_TCP_ESTABLISHED || before == BPF_TCP_ESTABLISHED || after == BPF_TCP_CLOSE;
}

static __always_inline void hm_address(u8 *to, u32 v4, u32 a, u32 b, u32 c, u32 d, int six) {
  u32 words[4] = {six ? a : 0, six ? b : 0, six ? c : __constant_htonl(0xffff), six ? d : v4};
  __builtin_memcpy(to, words, 16);
}

static __always_inline void hm_peer(u8 *to, struct bpf_sock_ops *ops) {
  u32 v4 = ops->remote_ip4, words[4] = {ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2], ops->remote_ip6[3]};
  asm volatile("" : "+r"(v4), "+r"(words[3])); /* else the compiler chooses the field and reads once, which the verifier does not allow */
  hm_address(to, v4, words[0], words[1], words[2], words[3], ops->family == HM_AF_INET6);
}

/* A connection that a peer opened is counted here: this is once, however often its SYN or ours was sent. */
static __always_inline void hm_accepted(struct bpf_sock_ops *ops) {
  struct bpf_sock *sk = ops->sk;
  struct hm_totals *totals = hm_totals();
  if (!sk || !totals)
    return;
  u64 *owner = bpf_sk_storage_get(HM_MAP(OWNERS), sk, 0, 0);
  if (!owner || !*owner)
    return;
  struct hm_flow_key key = {.cgroup = *owner, .protocol = IPPROTO_TCP};
  hm_peer(key.peer, ops);
  __sync_fetch_and_add(&totals->all.connections_in, 1);
  struct hm_flow *flow = hm_flow_of(&key);
  if (flow)
    __sync_fetch_and_add(&flow->connections_in, 1);
}

/* The same socket may have tried before: its next SYN is the first of a connection (hm_opens). */
static __always_inline void hm_connects(struct bpf_sock_ops *ops) {
  struct bpf_sock *sk = ops->sk;
  u64 *owner = sk ? bpf_sk_storage_get(HM_MAP(OWNERS), sk, 0, 0) : 0;
  if (owner)
    *owner = 0;
}

int hm_tcp(struct bpf_sock_ops *ops) {
  switch (ops->op) {
  case BPF_SOCK_OPS_TCP_CONNECT_CB:
    hm_connects(ops);
    bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
    return 1;
  case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
    hm_accepted(ops);
    bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
    return 1;
  case BPF_SOCK_OPS_STATE_CB:
    break;
  default:
    return 1;
  }
  u32 before = ops->args[0], after = ops->args[1];
  struct bpf_sock *sk = ops->sk;
  struct hm_cfg *cfg = hm_cfg();
  struct hm_totals *totals = hm_totals();
  if (!sk || !cfg || !totals || !hm_tells(before, after))
    return 1;
  u64 *owner = bpf_sk_storage_get(HM_MAP(OWNERS), sk, 0, 0);
  if (!owner || !*owner || !hm_may_send(cfg, totals, 1))
    return 1;
  struct hm_tcp_event *event = bpf_ringbuf_reserve(HM_MAP(EVENTS), sizeof(*event), 0);
  if (!event) {
    __sync_fetch_and_add(&totals->overrun, 1);
    return 1;
  }
  u32 local6[4] = {ops->local_ip6[0], ops->local_ip6[1], ops->local_ip6[2], ops->local_ip6[3]};
  event->kind = HM_TCP;
  event->family = ops->family;
  event->time = bpf_ktime_get_ns();
  event->cgroup = *owner;
  hm_address(event->local, ops->local_ip4, local6[0], local6[1], local6[2], local6[3], ops->family == HM_AF_INET6);
  hm_peer(event->peer, ops);
  event->local_port = ops->local_port;
  event->peer_port = __constant_ntohl(ops->remote_port);
  event->before = before;
  event->after = after;
  event->unused[0] = event->unused[1] = 0;
  __sync_fetch_and_add(&totals->events, 1);
  bpf_ringbuf_submit(event, 0);
  return 1;
}
