// Package registrytest runs Debian's docker-registry for tests.
package registrytest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// Options of a registry.
type Options struct {
	Htpasswd  string // lines of users that may use it; empty: everybody
	Cert, Key string // files for TLS; empty: plain HTTP
}

// Registry is a docker-registry on the loopback interface.
type Registry struct {
	Addr string // host:port
	Dir  string // where it keeps everything
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// Start starts a registry, which ends with the test.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	dir := t.TempDir()
	config := "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}, delete: {enabled: true}}\n"
	if o.Htpasswd != "" {
		must(t, os.WriteFile(dir+"/htpasswd", []byte(o.Htpasswd), 0o600))
		config += "auth: {htpasswd: {realm: test, path: " + dir + "/htpasswd}}\n"
	}
	config += "http:\n  addr: 127.0.0.1:0\n"
	if o.Cert != "" {
		config += fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", o.Cert, o.Key)
	}
	must(t, os.WriteFile(dir+"/config.yml", []byte(config), 0o600))
	cmd := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	log, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	found := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		cmd.Wait()
	})
	select {
	case addr := <-found:
		return &Registry{Addr: addr, Dir: dir}
	case <-ended:
		t.Fatal("docker-registry ended")
	case <-time.After(30 * time.Second):
		t.Fatal("docker-registry does not listen")
	}
	return nil
}

// Blob returns the file of a blob, by the hexadecimal digits of its digest.
func (r *Registry) Blob(hex string) string {
	return filepath.Join(r.Dir, "data/docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
