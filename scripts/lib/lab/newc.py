"""The part of the newc cpio format that a Linux kernel unpacks: directories and files, uncompressed, one archive after another."""

import os
import shutil
import stat


class Archive:
    """Appends an archive to an open binary file. Every file's parent directories are made on the way."""

    def __init__(self, out):
        self.out = out
        self.inode = 0
        self.directories = set()

    def _header(self, path, mode, size):
        self.inode += 1
        name = path.encode() + b"\0"
        #         ino         mode  uid gid nlink mtime size dev(4) name length, check
        fields = (self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0)
        self.out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self._pad()

    def _pad(self):
        self.out.write(b"\0" * (-self.out.tell() % 4))

    def _parents(self, path):
        parent = os.path.dirname(path)
        if parent and parent not in self.directories:
            self._parents(parent)
            self.directories.add(parent)
            self._header(parent, stat.S_IFDIR | 0o755, 0)

    def text(self, path, text, mode=0o644):
        data = text.encode()
        self._parents(path)
        self._header(path, stat.S_IFREG | mode, len(data))
        self.out.write(data)
        self._pad()

    def tree(self, source, path):
        """Copies a host file, or a directory with what is below it, to `path`; links are followed."""
        if os.path.isdir(source):
            self._parents(os.path.join(path, "x"))
            for name in sorted(os.listdir(source)):
                if not name.startswith("."):
                    self.tree(os.path.join(source, name), os.path.join(path, name))
            return
        with open(source, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{source} is neither a file nor a directory")
            if status.st_size >= 1 << 32:
                raise OSError(f"{source} is too large to hand in: the limit is 4 GiB")
            self._parents(path)
            self._header(path, stat.S_IFREG | (0o755 if status.st_mode & 0o100 else 0o644), status.st_size)
            shutil.copyfileobj(file, self.out, 1 << 20)
            self._pad()

    def end(self):
        self._header("TRAILER!!!", 0, 0)
        self.out.write(b"\0" * (-self.out.tell() % 512))
