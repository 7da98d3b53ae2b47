# shellcheck shell=bash
# Reference VMMs for the lab, which has no libraries: each in a directory with its own, behind a script `run` that starts it.

# peer_directory DIRECTORY KIND[=FILE] INITRD: makes it; INITRD is the Linux guest's, whose fio is `host` without a FILE.
peer_directory() {
    local directory=$1 kind=${2%%=*} file='' data rom libraries start='"$root/program"'
    if [[ $2 == *=* ]]; then file=${2#*=}; fi
    mkdir -p "$directory"
    case $kind in
        qemu)
            file=${file:-$(command -v qemu-system-x86_64)} || return
            data=$(dirname "$(dirname "$(realpath "$file")")")/share/qemu
            mkdir "$directory/share"
            for rom in qboot.rom kvmvapic.bin linuxboot_dma.bin; do cp -L "$data/$rom" "$directory/share/" || return; done
            start+=' -L "$root/share"'
            ;;
        host)
            if [[ -z $file ]]; then
                (cd "$directory" && cpio --quiet -id 'sbin/fio' 'lib/*' 'lib64/*') <"$3" || return
                start='"$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu" "$root/sbin/fio"'
            fi
            ;;
        *) file=${file:-$(command -v "$kind")} || return ;;
    esac
    if [[ -n $file ]]; then
        cp -L "$file" "$directory/program" && chmod +x "$directory/program" || return
        # A static program has none.
        if libraries=$(ldd "$file" 2>/dev/null); then
            mkdir "$directory/lib"
            awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' <<<"$libraries" | xargs -I{} cp -L {} "$directory/lib/" || return
            start="\"\$root/lib/$(awk '$1 ~ "^/" { sub(".*/", "", $1); print $1 }' <<<"$libraries")\" --library-path \"\$root/lib\" $start"
        fi
    fi
    printf '#!/bin/sh\nroot=${0%%/*}\nexec %s "$@"\n' "$start" >"$directory/run"
    chmod +x "$directory/run"
}
