#!/bin/sh
# The first process of a machine in user mode (tests/support/user_mode.py): mount its disk, and go on with the system on
# it. The kernel of Debian's package has the driver of the disk, and most others, as modules.
PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
[ -z "${clock_is_off_by:-}" ] || date -s "@$(($(date +%s) + clock_is_off_by))" >/dev/null
unset clock_is_off_by
[ ! -e /virtio_blk.ko ] || insmod /virtio_blk.ko
mount -t ext4 /dev/vda /disk
umount /dev

release=$(uname -r)
if ! [ -e "/disk/lib/modules/$release" ]; then
    mkdir /modules
    mount -t hostfs -o "$(cat /modules.from)" none /modules
    cp -a /modules "/disk/lib/modules/$release"
    chroot /disk /sbin/depmod "$release"
    umount /modules
fi

# The kubelet of 1.20 reads the speed of the processor, which this kernel does not tell.
mount -t proc none /disk/proc
mount -t tmpfs -o mode=0755 none /disk/run
awk '{ print } /^model name/ { print "cpu MHz\t\t: 1000.000" }' /proc/cpuinfo >/disk/run/cpuinfo
mount --bind /disk/run/cpuinfo /disk/proc/cpuinfo
umount /proc
exec switch_root /disk /sbin/init
