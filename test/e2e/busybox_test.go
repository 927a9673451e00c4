package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"sync"
)

// applets are the links to busybox that guests have.
var applets = []string{"sh", "cat", "echo", "hostname", "httpd", "id", "ls", "nc", "ps", "sleep", "touch", "true", "wget", "mkdir", "test", "sync", "wc"}

// busyboxArchive is a tar of a small root filesystem: a static busybox, a page
// for its web server, and what files are given beside.
func busyboxArchive(more map[string][]byte) ([]byte, error) {
	program, err := busybox()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, content []byte) {
		if err != nil {
			return
		}
		h.Size = int64(len(content))
		if err = w.WriteHeader(&h); err == nil {
			_, err = w.Write(content)
		}
	}
	for _, dir := range []string{"bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "srv"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for _, name := range applets {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\n"))
	// busybox httpd has no text for a directory of which it can tell the host:
	// the page is made by the guest's init.
	add(tar.Header{Name: "sbin/web", Mode: 0o755}, []byte(webScript))
	for name, content := range more {
		add(tar.Header{Name: name, Mode: 0o755}, content)
	}
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}

// webScript serves the guest's hostname on a port: process 1 of most guests.
const webScript = `#!/bin/sh
hostname >/srv/index.html
exec busybox httpd -f -p "$1" -h /srv
`

var busybox = sync.OnceValues(func() ([]byte, error) {
	const path = "/bin/busybox"
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install busybox-static", err)
	}
	return b, nil
})
