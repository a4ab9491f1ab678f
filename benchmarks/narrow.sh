#!/bin/sh
# Two workers, each on a machine of its own, with a narrow network between them, against
# one process: sh benchmarks/narrow.sh [flags of workers.py]
#
# A machine is a network namespace; the network between them carries $RATE bits a second
# (1e9) and delays each packet by $DELAY seconds (0.0005). Both are removed in any case.
set -eu
rate=${RATE:-1e9} delay=${DELAY:-0.0005} python=${PYTHON:-python}
a=autorec-a-$$ b=autorec-b-$$ here=$(dirname "$0") link=

skip() {
    echo "skipped: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "only root may make network namespaces"
command -v ip > /dev/null || skip "there is no ip (iproute2)"
launcher=$(mktemp)
trap 'rm -f "$launcher"; [ -z "$link" ] || kill $link || :; ip netns del $a 2> /dev/null || :
    ip netns del $b 2> /dev/null || :' EXIT
trap 'exit 1' INT TERM HUP
for name in "$a" "$b"; do
    ip netns add "$name" 2> /dev/null || skip "network namespaces are not allowed here"
    ip -n "$name" link set lo up
done
link=$("$python" "$here/link.py" "$rate" "$delay" "$a" "$b") || skip "there is no TUN"
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
