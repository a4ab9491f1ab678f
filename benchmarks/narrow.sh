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
launcher=$(mktemp)
trap 'rm -f "$launcher"; [ -z "$holder" ] || kill $holder || :; ip netns del $a 2> /dev/null || :
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
# In ssh's place: flags, a host, and a command for it.
cat > "$launcher" <<END
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
case \$1 in 10.77.0.1) name=$a ;; *) name=$b ;; esac
shift
exec ip netns exec \$name sh -c "\$*"
END
chmod +x "$launcher"
# MPI would take both for one machine, with memory to share.
export UCX_TLS=tcp,self UCX_NET_DEVICES=eth0 MPIR_CVAR_NOLOCAL=1
mpiexec=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")/mpiexec
ip netns exec "$a" "$python" "$here/workers.py" --interface eth0 --mpiexec \
    "$mpiexec -iface eth0 -launcher ssh -launcher-exec $launcher -hosts 10.77.0.1,10.77.0.2 -ppn 1" \
    "$@"
