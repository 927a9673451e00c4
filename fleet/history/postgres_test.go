package history

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is a PostgreSQL of Debian that runs for the tests of this package, on a Unix
// socket, as the unprivileged user that its package makes.
type server struct {
	dir   string
	cmd   *exec.Cmd
	count int
}

const password = "hunter2-hunter2"

var (
	serverOnce sync.Once
	shared     *server
	errServer  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		shared.stop()
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// newDatabase returns the address of an empty database of its own.
func newDatabase(t *testing.T) string {
	t.Helper()
	serverOnce.Do(func() { shared, errServer = startServer() })
	if errServer != nil {
		t.Fatal(errServer)
	}
	return shared.database(t)
}

func startServer() (*server, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		return nil, errors.New("no PostgreSQL: scripts/install test installs it")
	}
	bin := bins[len(bins)-1]
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir, err := os.MkdirTemp("", "vsfleet-postgres-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir}
	pwfile := filepath.Join(dir, "password")
	for _, err := range []error{os.WriteFile(pwfile, []byte(password), 0o600), os.Chown(pwfile, uid, gid), os.Chown(dir, uid, gid)} {
		if err != nil {
			return nil, err
		}
	}
	asPostgres := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Setpgid: true}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := asPostgres("initdb", "-D", data, "-U", "vsfleet", "-A", "scram-sha-256", "--pwfile", pwfile, "--no-sync").CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	s.cmd = asPostgres("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.address("postgres"))
		if err == nil {
			return s, conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			return s, fmt.Errorf("%w\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) address(database string) string {
	return (&url.URL{Scheme: "postgres", User: url.UserPassword("vsfleet", password), Path: "/" + database, RawQuery: "host=" + s.dir}).String()
}

func (s *server) database(t *testing.T) string {
	t.Helper()
	s.count++
	name := fmt.Sprintf("test%d", s.count)
	conn, err := pgx.Connect(t.Context(), s.address("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.address(name)
}

// stop ends the server at once, with its children.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	_ = s.cmd.Wait()
}
