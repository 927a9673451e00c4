package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// bomb is this program as the init of a guest: it takes as many of one thing as it
// gets, holds them and goes on asking.
const bomb = "/bin/bomb"

// bombs take one more, and hold it.
var bombs = map[string]func(n int) error{
	"processes": func(int) error {
		_, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
		return err
	},
	"inotify": func(int) error { _, err := unix.InotifyInit1(0); return err },
	"terminals": func(int) error {
		_, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
		return err
	},
	"ports": func(int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{})
		}
		if err != nil {
			unix.Close(fd)
		}
		return err
	},
	"queues": func(n int) error {
		name := append([]byte(fmt.Sprint("bomb", n)), 0)
		_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	},
	"mounts": func(n int) error {
		dir := fmt.Sprint("/run/", n)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		return unix.Mount("/bin", dir, "", unix.MS_BIND, "")
	},
	"cgroups": func(n int) error { return os.Mkdir(fmt.Sprint("/sys/fs/cgroup/", n), 0o700) },
	"output": func(n int) error {
		os.Stdout.Write(bytes.Repeat([]byte("more than anybody wants to read\n"), 1000))
		if n == 100 {
			return errors.New("the log has enough")
		}
		return nil
	},
}

func beBomb() {
	said := false
	for n := 0; ; n++ {
		if err := bombs[os.Args[1]](n); err != nil && !said {
			fmt.Printf("\nfull after %d: %v\n", n, err)
			said = os.Args[1] != "output" // whose words are lost among the rest
		}
	}
}

// TestANeighbourOfABombAnswers: what one guest takes all of, the host and another guest
// still have. Memory is in node/procctx/limit_test.go, connections in node/nat/bound_test.go,
// the disk in quota_test.go.
func TestANeighbourOfABombAnswers(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	neighbour := inMode(api.ModeNAT, "neighbour", 170, "httpd", "-f", "-p", "8080", "-h", "/etc")
	must(t, h.Create(ctx, neighbour))
	must(t, h.Start(ctx, neighbour.Name, Options{}))
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(tree, bomb), program, 0o755))
	for i, kind := range slices.Sorted(maps.Keys(bombs)) {
		t.Run(kind, func(t *testing.T) {
			before := traces(t)
			g := inMode(api.ModeShared, "bomb-"+kind, 171+i, bomb, kind)
			g.Limits.Processes = 100
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			eventually(t, func() string { return "full: " + logOf(t, h, g.Name, 3) }, func() bool {
				o, err := h.output(g.Name)
				must(t, err)
				return kind == "output" && o.Total > 1<<20 || strings.Contains(logOf(t, h, g.Name, 3), "full after ")
			})
			if strings.Contains(logOf(t, h, g.Name, 3), "full after 0:") {
				t.Errorf("it got none: %s", logOf(t, h, g.Name, 3))
			}
			if got := fetch(t, "198.51.100.1:9090"); !strings.Contains(got, "root:x:0:0") {
				t.Errorf("from the neighbour came %q", got)
			}
			if out, code := run(t, h, neighbour.Name, "sh", "-c", "exec 3<>/dev/ptmx && id -u"); code != 0 || out != "0" {
				t.Errorf("a program of the neighbour's: %s", out)
			}
			for what, take := range map[string]func() (io.Closer, error){
				"a process": func() (io.Closer, error) { return os.Stdin, exec.Command("true").Run() },
				"an inotify instance": func() (io.Closer, error) {
					fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
					return os.NewFile(uintptr(fd), "inotify"), err
				},
				"a terminal": func() (io.Closer, error) { return os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0) },
			} {
				c, err := take()
				if err != nil {
					t.Errorf("the host does not get %s: %v", what, err)
				} else if c != os.Stdin {
					c.Close()
				}
			}
			begun := time.Now()
			if _, err := h.Stop(ctx, g.Name); err != nil || time.Since(begun) > 30*time.Second {
				t.Errorf("stop: %v, after %v", err, time.Since(begun))
			}
			must(t, h.Delete(ctx, g.Name))
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}
