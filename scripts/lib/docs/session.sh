# Words for the commands in docs/*.md, for bash and for the lab's busybox: `vm`, `guest`, `evidence`. Sourced by scripts/docs.
#
#   vm NAME [OPTION...]       doorbell run with our Linux guest, control socket /tmp/NAME; returns when its shell is there
#   guest NAME 'COMMAND'      types the command into that VM's shell, prints what it printed
#   evidence NAME 'COMMAND' [FUNCTION...]
#                             the same, and the kernel functions that ran on the host meanwhile (doorbell trace --kernel), or some of them
#                             in the guest, `reads DISK N` reads N times 4 KiB, one after the other, past its page cache
#   off NAME                  the guest powers off; prints what the VMM said at the end

vms=

# Whether the VMM runs: one that has ended stays as a zombie, which a signal 0 still finds.
alive() {
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$(cat "/tmp/$1.pid")/status" 2>/dev/null)
    [ -n "$state" ] && [ "$state" != Z ]
}

vm() {
    vm_name=$1
    shift
    mkfifo "/tmp/$vm_name.keys"
    : >"/tmp/$vm_name.console"
    # Both ends: no end of file between two commands.
    (exec 9<>"/tmp/$vm_name.keys" && exec doorbell run --kernel /guest/vmlinux --initrd /guest/initrd \
        --cmdline "console=ttyS0 quiet panic=-1 doorbell.shell" --control "/tmp/$vm_name" "$@" \
        <&9 >"/tmp/$vm_name.console" 2>"/tmp/$vm_name.errors") &
    echo $! >"/tmp/$vm_name.pid"
    vms="$vms $vm_name"
    until grep -q "ends it" "/tmp/$vm_name.console"; do
        if ! alive "$vm_name"; then
            cat "/tmp/$vm_name.errors"
            return 1
        fi
        sleep 0.2
    done
    # A shell that runs a script neither prompts nor repeats what it is told. (With busybox's cat | sh every second line came
    # late, with the next one; a cat alone, or a shell on the terminal, took each at once.)
    echo "stty -echo; exec 2>&1; echo @shell; sh /dev/ttyS0" >"/tmp/$vm_name.keys"
    # What is typed before the first shell is done with its line would be lost in its buffer.
    until tr -d '\r' <"/tmp/$vm_name.console" | grep -q '^@shell$'; do sleep 0.1; done
    guest "$vm_name" 'reads() { dd if="/dev/$1" of=/dev/null bs=4k count="$2" iflag=direct 2>/dev/null; }'
}

guest() {
    before=$(wc -c <"/tmp/$1.console")
    # For reading, too: with nobody left to read it, opening it for writing alone would wait for ever.
    echo "$2; echo @done" 1<>"/tmp/$1.keys"
    looks=0
    until tail -c "+$((before + 1))" "/tmp/$1.console" | tr -d '\r' | grep -q '^@done$'; do
        if ! alive "$1"; then
            cat "/tmp/$1.errors"
            return 1
        fi
        sleep 0.1
        looks=$((looks + 1))
        if [ $looks -gt 600 ]; then
            echo "guest $1: no answer; the end of its console:"
            tail -n 20 "/tmp/$1.console"
            return 1
        fi
    done
    tail -c "+$((before + 1))" "/tmp/$1.console" | tr -d '\r' | sed '/^@done$/,$d'
}

evidence() {
    # Before the tracer is started: what the one before it said must not be taken for its word.
    : >/tmp/evidence.out
    doorbell trace "/tmp/$1" --kernel --for 600 >/tmp/evidence.out 2>&1 &
    tracer=$!
    until grep -q '^armed: ' /tmp/evidence.out; do
        kill -0 $tracer 2>/dev/null || { cat /tmp/evidence.out; return 1; }
        sleep 0.1
    done
    guest "$1" "$2" >/tmp/evidence.guest
    # Not SIGINT: a shell starts what is in the background with that one ignored, and doorbell leaves it so.
    kill $tracer
    wait $tracer
    cat /tmp/evidence.guest
    shift 2
    if [ $# -eq 0 ]; then
        # A vendor's heading with nothing below it goes as well.
        sed -n '/^kernel/,$p' /tmp/evidence.out | grep -v -e ' absent' -e ' 0$' |
            awk '/^ [^ ]/ { heading = $0; next } heading { if (/^  /) print heading; heading = "" } { print }'
    else
        grep -E "^  ($(echo "$*" | tr ' ' '|')) " /tmp/evidence.out
    fi
}

off() {
    echo "poweroff -f" 1<>"/tmp/$1.keys"
    looks=0
    while alive "$1" && [ $looks -lt 60 ]; do
        sleep 1
        looks=$((looks + 1))
    done
    kill "$(cat "/tmp/$1.pid")" 2>/dev/null && echo "$1 did not power off"
    cat "/tmp/$1.errors"
    vms=$(echo "$vms " | sed "s/ $1 / /")
    [ $looks -lt 60 ]
}

close_all() {
    for one in $vms; do off "$one"; done
    true
}
