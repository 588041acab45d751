"""Build a Debian cloud image from packages alone, for machines that cannot download one.

The result has what Debian's own cloud images have: stock kernel, systemd, cloud-init and its stock
configuration, a root filesystem that grows to the disk it is given, a serial console, no password and no host keys.
It boots from a disk by BIOS, and it is trimmed to boot fast without KVM too.

Steps: mmdebstrap makes the files. mke2fs makes a filesystem of them without mounting it. extlinux makes it bootable;
only this step mounts, in its own mount namespace, so nothing stays mounted after an error. The filesystem is put after
an MBR. Needs root.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.local.apt_sources import mirror_lines
from runtime.files.files import put
from runtime.files.lock import lock
from runtime.files.private import PUBLIC, passable

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MBR = (Path("/usr/lib/EXTLINUX/mbr.bin"), Path("/usr/lib/syslinux/mbr/mbr.bin"))
FILESYSTEM_MIB = 1536

PACKAGES = (
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "zstd"),
    *("cloud-init", "cloud-guest-utils", "e2fsprogs", "qemu-guest-agent"),
    *("netbase", "iproute2", "iputils-ping", "systemd-resolved", "libnss-myhostname", "ca-certificates"),
    *("openssh-server", "sudo", "less", "nano"),
)

#: Before the kernel is installed: a small initramfs (drivers for disks that hypervisors offer), made once.
PREPARE = """
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/nebula"
printf '%s\\n' virtio_pci virtio_blk virtio_scsi sd_mod ahci nvme ext4 > "$1/etc/initramfs-tools/modules"
"""

#: After all packages: the network by systemd-networkd (which cloud-init detects), and no background services at boot.
#: Without KVM an RSA key takes 5 to 13 seconds: host keys are of the kinds that OpenSSH prefers, unless user-data asks
#: for others (`ssh_genkeytypes`). There is no GRUB to configure.
CUSTOMIZE = """
chroot "$1" systemctl --quiet enable systemd-networkd systemd-resolved
chroot "$1" systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service
chroot "$1" groupadd --system --force netdev
cat > "$1/etc/cloud/cloud.cfg.d/90_nebula.cfg" <<END
ssh_genkeytypes: [ed25519, ecdsa]
grub_dpkg: {enabled: false}
END
echo LANG=C.UTF-8 > "$1/etc/default/locale"
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' > "$1/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
echo 'LABEL=cloudimg-rootfs / ext4 defaults,errors=remount-ro 0 1' > "$1/etc/fstab"
mkdir -p "$1/boot/extlinux"
cat > "$1/boot/extlinux/extlinux.conf" <<END
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
  KERNEL /vmlinuz
  INITRD /initrd.img
  APPEND root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200
END
cat > "$1/etc/apt/sources.list" <<END
deb http://deb.debian.org/debian $SUITE main
deb http://deb.debian.org/debian $SUITE-updates main
deb http://deb.debian.org/debian-security $SUITE-security main
END
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/var/lib/dbus/machine-id"
: > "$1/etc/machine-id"
"""

#: In a mount namespace of its own: the mount ends with the shell, even if that is killed.
EXTLINUX = 'mount -o loop "$1" "$2" && extlinux --install "$2/boot/extlinux" && umount "$2"'


class ImageBuildError(Exception):
    """The image could not be built. The message is one line that says which step failed, and how."""


@dataclass(frozen=True)
class ImageFile:
    path: Path
    sha256: str
    size_bytes: int
    virtual_size_bytes: int


def build_debian_image(suite: str, out: Path, *, progress: Callable[[str], None], cache: Path) -> ImageFile:
    """Make the qcow2 image `out` of Debian `suite` (`bookworm`, …); blocks for about two minutes.

    An image of the same suite and recipe in `cache` is used again, of any age: empty `cache` to get newer
    packages. QEMU's user must be able to read `cache` and `out`: not below /root or /tmp. Two builds wait for each
    other. `out` is written completely or not at all. `progress` gets one line per step.
    Raises ImageBuildError.
    """
    passable(cache.parent)
    cache.mkdir(exist_ok=True)
    image = cache / f"debian-{suite}-{_recipe(suite)}.qcow2"
    with lock(cache / f"{image.name}.lock", wait=True):
        facts = image.with_suffix(".json")
        if not (image.exists() and facts.exists()):
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as folder:
                _build(suite, Path(folder), image, progress)
            put(facts, json.dumps(_measure(image)))
    built = ImageFile(path=out, **json.loads(facts.read_text()))
    if out.absolute() != image.absolute():
        _place(image, out)
    return built


def _recipe(suite: str) -> str:
    text = json.dumps([suite, PACKAGES, PREPARE, CUSTOMIZE, EXTLINUX, FILESYSTEM_MIB])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _build(suite: str, folder: Path, image: Path, progress: Callable[[str], None]) -> None:
    mbr = next((path for path in MBR if path.exists()), None)
    if os.geteuid() != 0:
        raise ImageBuildError("building an image needs root: run this command as root")
    if platform.machine() not in ("x86_64", "amd64"):
        raise ImageBuildError("images are built only for x86_64, on x86_64; import one instead (nebula image import)")
    if mbr is None or not KEYRING.exists():
        raise ImageBuildError("extlinux or debian-archive-keyring is missing: run `make setup`")
    folder.chmod(0o755)
    root, filesystem, disk, mount = (folder / name for name in ("root", "filesystem", "disk", "mount"))

    progress(f"installing {len(PACKAGES)} packages of Debian {suite} and what they need")
    _run(
        "mmdebstrap",
        *("--mode=root", "--variant=minbase", "--format=directory", f"--keyring={KEYRING}"),
        f"--include={','.join(PACKAGES)}",
        *(f"--essential-hook={PREPARE}", f"--customize-hook={CUSTOMIZE}"),
        *(suite, str(root), *mirror_lines(suite)),
        env={"SUITE": suite},
    )
    progress("making the filesystem")
    _allocate(filesystem, FILESYSTEM_MIB)
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^64bit,^metadata_csum", "-L", "cloudimg-rootfs", "-d", root, filesystem)
    mount.mkdir()
    _run("unshare", "--mount", "sh", "-c", EXTLINUX, "sh", filesystem, mount)

    progress("making the disk")
    _allocate(disk, FILESYSTEM_MIB + 1)
    _run("sfdisk", "--quiet", disk, stdin="label: dos\nstart=1MiB, type=83, bootable\n")
    _run("dd", f"if={mbr}", f"of={disk}", "bs=440", "count=1", "conv=notrunc")
    _run("dd", f"if={filesystem}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse")
    whole = folder / "image.qcow2"
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", disk, whole)
    whole.replace(image)


def _allocate(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(mebibytes << 20)


def _measure(image: Path) -> dict[str, str | int]:
    with image.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "sha256": digest,
        "size_bytes": image.stat().st_size,
        "virtual_size_bytes": (FILESYSTEM_MIB + 1) << 20,
    }


def _place(image: Path, out: Path) -> None:
    """Make `out` the same file as `image`, or a copy if it is on another filesystem; atomic in both cases."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and out.samefile(image):
        return  # renaming one link of a file to another link of it does nothing and keeps both
    new = out.with_name(f".{out.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        new.hardlink_to(image)
    except OSError:
        shutil.copyfile(image, new)
    new.replace(out)


def _run(*argv: str | Path, stdin: str = "", env: dict[str, str] | None = None) -> None:
    try:
        environment = {**os.environ, **(env or {})}
        subprocess.run(argv, input=stdin, env=environment, capture_output=True, text=True, check=True, umask=PUBLIC)
    except FileNotFoundError as error:
        raise ImageBuildError(f"{argv[0]} is missing: run `make setup`") from error
    except subprocess.CalledProcessError as error:
        last = " | ".join(error.stderr.strip().splitlines()[-2:])
        raise ImageBuildError(f"{argv[0]} failed with exit status {error.returncode}: {last}") from error
