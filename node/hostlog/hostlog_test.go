package hostlog

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// listen is a daemon that reads the socket.
func listen(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, path
}

func TestALineGoesToTheDaemon(t *testing.T) {
	conn, path := listen(t)
	Log{Socket: path, File: "/proc/nothing"}.Write("vsnode", "one\nline \x1b[31m")
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	// As syslog(3) of glibc writes it.
	want := regexp.MustCompile(`^<29>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} vsnode\[[0-9]+\]: one[^\n\x1b]*line [^\x1b]*$`)
	if got := string(b[:n]); !want.MatchString(got) {
		t.Errorf("%q", got)
	}
	Log{Socket: path}.Write("vsnode", strings.Repeat("x", 5000))
	if n, err := conn.Read(b); err != nil || n > mostLine {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestADaemonThatReadsNothingHoldsNothingUp(t *testing.T) {
	_, path := listen(t)
	begun := time.Now()
	for range 5000 { // far more than fit into the socket
		Log{Socket: path}.Write("vsnode", "x")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestWithoutADaemonALineGoesToAFile(t *testing.T) {
	dir := t.TempDir()
	l := Log{Socket: filepath.Join(dir, "nothing"), File: filepath.Join(dir, "log", "runs")}
	l.Write("vsnode", "the first")
	l.Write("vsnode", "the second")
	b, err := os.ReadFile(l.File)
	if got := strings.Split(strings.TrimSpace(string(b)), "\n"); err != nil || len(got) != 2 || !strings.HasSuffix(got[1], "Z the second") && !strings.Contains(got[1], ":00 the second") {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Truncate(l.File, mostFile+1); err != nil {
		t.Fatal(err)
	}
	l.Write("vsnode", "the third")
	if b, err := os.ReadFile(l.File); err != nil || !strings.HasSuffix(string(b), " the third\n") || len(b) > 100 {
		t.Errorf("it grows without an end: %d bytes, %v", len(b), err)
	}
	if _, err := os.Stat(l.File + ".old"); err != nil {
		t.Error(err)
	}
}

func TestWithNeitherNothingHappens(t *testing.T) {
	Log{}.Write("vsnode", "x")
	Log{Socket: "/proc/nothing", File: "/proc/nothing/file"}.Write("vsnode", "x")
	link := filepath.Join(t.TempDir(), "link")
	target := link + ".target"
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	Log{File: link}.Write("vsnode", "x")
	if _, err := os.Stat(target); err == nil {
		t.Error("it followed a symbolic link")
	}
}
