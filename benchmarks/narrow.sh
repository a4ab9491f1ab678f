#!/bin/sh
# Two workers, each on a machine of its own, with a narrow network between them, against
# one process: sh benchmarks/narrow.sh [flags of workers.py]
#
# A machine is a network namespace; what connects them is held to $RATE (1gbit), and
# delays each packet by $DELAY seconds (0.0005). Whatever becomes of it, both are removed
# again.
set -eu
rate=${RATE:-1gbit} delay=${DELAY:-0.0005} python=${PYTHON:-python}
a=autorec-a-$$ b=autorec-b-$$ here=$(dirname "$0") holder=

skip() {
    echo "skipped: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "only root may make network namespaces"
for tool in ip tc; do
    command -v $tool > /dev/null || skip "there is no $tool (iproute2)"
done
trap '[ -z "$holder" ] || kill $holder || :; ip netns del $a 2> /dev/null || :
    ip netns del $b 2> /dev/null || :' EXIT
trap 'exit 1' INT TERM HUP
ip netns add "$a" 2> /dev/null || skip "network namespaces are not allowed here"
ip netns add "$b"
ip link add eth0 netns "$a" type veth peer name eth0 netns "$b" 2> /dev/null ||
    skip "virtual interfaces are not allowed here"
holder=$("$python" "$here/delay.py" "$delay" "$a" "$b") || skip "packets cannot be delayed"
for host in "$a 1" "$b 2"; do
    name=${host% *}
    ip -n "$name" link set lo up
    ip -n "$name" addr add "10.77.0.${host#* }/24" dev eth0
    ip -n "$name" link set eth0 mtu 65000 up
    ip netns exec "$name" tc qdisc add dev eth0 root \
        tbf rate "$rate" burst 256k latency 50ms 2> /dev/null ||
        skip "tc may not hold an interface to a rate here"
done
"$python" "$here/workers.py" \
    --hosts "$a" "$b" --address 10.77.0.1 --interface eth0 "$@"
