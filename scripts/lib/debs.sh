# shellcheck shell=bash
# Debian packages as files: fetched with apt-get, unpacked with dpkg-deb, never installed.

# debs_fetch DIR PACKAGE...: leaves each package's .deb, at apt's candidate version, in DIR. The name `kernel` stands for the stock
# cloud kernel, `kernel-6.12` for a newer one of that series; their packages have their versions in their names.
debs_fetch() {
    # A package list that is missing or stale shows as a failed download: renew it once, then try again.
    if ! _debs_download "$@" 2>/dev/null; then
        "$(dirname "${BASH_SOURCE[0]}")/../setup" --refresh
        _debs_download "$@" || { echo "debs: cannot fetch these packages: ${*:2} (this needs Debian 12, amd64, with a mirror in reach)" >&2; return 1; }
    fi
}

_debs_download() {
    local directory=$1 package packages=()
    shift
    for package in "$@"; do
        if [[ $package == kernel* ]]; then
            package=$(apt-cache depends "linux-image${package#kernel}-cloud-amd64" | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1)
        fi
        packages+=("$package")
    done
    mkdir -p "$directory"
    # apt's own user cannot write to our directory; told to stay who it is, it prints no warning about that.
    (cd "$directory" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "${packages[@]}" >/dev/null)
}

# debs_fetch_from SUITE DIR PACKAGE...: the same from another suite of the mirror that apt uses, whose lists stay apart from the system's.
debs_fetch_from() {
    local suite=$1 directory=$2 uri apt
    shift 2
    # shellcheck disable=SC2016 # the names are apt's
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" | head -n 1)
    if [[ -z $uri ]]; then
        echo "debs: apt has no list of Debian's packages to take the mirror from: run scripts/setup --refresh" >&2
        return 1
    fi
    mkdir -p "$directory"
    apt=$(mktemp -d)
    mkdir -p "$apt"/{lists,cache/archives}/partial
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$uri" "$suite" >"$apt/other.sources"
    cat >"$apt/conf" <<END
Dir::Etc::sourcelist "$apt/other.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "$(id -un)";
END
    (
        export APT_CONFIG=$apt/conf
        cd "$directory" && apt-get update -qq >&2 && apt-get download -qq "$@" >/dev/null
    ) || { echo "debs: cannot fetch these packages of Debian $suite: $* (this needs a mirror in reach)" >&2; rm -rf "$apt"; return 1; }
    rm -rf "$apt"
}

# debs_unpack DIR TARGET: unpacks every .deb of DIR into TARGET.
debs_unpack() {
    local deb
    mkdir -p "$2"
    for deb in "$1"/*.deb; do dpkg-deb -x "$deb" "$2"; done
}

# vmlinux_of BZIMAGE: writes the uncompressed ELF kernel to stdout. Offsets: Linux boot protocol, setup header.
vmlinux_of() {
    local setup_sectors offset length start
    setup_sectors=$(od -An -tu1 -j $((0x1f1)) -N1 "$1")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$1")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$1")
    start=$(((setup_sectors + 1) * 512 + offset))
    # The payload's last four bytes are its unpacked size, not part of the stream.
    _payload() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$start" count=$((length - 4)) status=none; }
    case $(od -An -tx1 -j "$start" -N4 "$1" | tr -d ' ') in
        02214c18) _payload "$1" | lz4 -dc - ;;
        28b52ffd) _payload "$1" | zstd -dcq - ;;
        fd377a58) _payload "$1" | xz -dc - ;;
        1f8b*) _payload "$1" | gzip -dc - ;;
        *) echo "debs: $1: kernel packed in a way that this script does not know" >&2; return 1 ;;
    esac
}

# modules_install TREE DIR LIST MODULE...: copies the modules below TREE and what they depend on to DIR, and writes their file
# names in loading order to DIR/LIST. A name that TREE has not (built in, perhaps) is passed over.
# (The order is found here because a kernel package has no modules.dep: depmod makes that at installation.)
modules_install() {
    local tree=$1 directory=$2 list=$3 name
    shift 3
    local -A seen=()
    for name in "$@"; do _module_install "$name"; done >"$directory/$list"
}

_module_install() {
    local name=${1//-/_} path dependency
    [[ -z ${seen[$name]-} ]] || return 0
    seen[$name]=1
    # A module's name has underscores, its file may have dashes instead.
    path=$(find "$tree" \( -name "$name.ko" -o -name "${name//_/-}.ko" -o -name "$name.ko.xz" -o -name "${name//_/-}.ko.xz" \) -print -quit)
    [[ -n $path ]] || return 0
    for dependency in $(_module_bytes "$path" | tr '\0' '\n' | sed -n 's/^depends=//p' | tr ',' ' '); do _module_install "$dependency"; done
    name=$(basename "${path%.xz}")
    _module_bytes "$path" >"$directory/$name"
    echo "$name"
}

_module_bytes() {
    case $1 in
        *.xz) xz -dc "$1" ;;
        *) cat "$1" ;;
    esac
}

# cpio_tree DIR: DIR as a newc archive on stdout: the same bytes for the same tree (sorted, no owner, time 0, inodes renumbered).
cpio_tree() {
    (
        cd "$1" || exit
        find . -exec touch -h -d @0 {} +
        find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio --quiet -o -0 -H newc -R 0:0 --reproducible
    )
}
