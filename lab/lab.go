package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// DefaultDir is the default directory of a lab.
const DefaultDir = "/var/lib/vsfleet/lab"

const (
	defaultName  = "lab"
	defaultHosts = 3
)

// Options select a lab and describe what it should be.
type Options struct {
	Dir    string       // "": DefaultDir. Up makes it; what is above it must exist
	Name   string       // tells labs of one machine apart; "": that of the lab in Dir, or "lab"
	Hosts  int          // at least; 0: as many as there are, or 3
	Subnet netip.Prefix // IPv4; zero: that of the lab in Dir, or the first free 10.253.N.0/24
	Log    func(string) // called with progress, one line each; nil: none
}

// Lab is a practice fleet in its current state.
type Lab struct {
	Name       string
	Dir        string
	Subnet     netip.Prefix
	Hosts      []Host
	Inventory  string // path of its fleet.yml
	KnownHosts string
	Identity   string // private key that opens every host
}

// complete fills in the defaults that do not depend on what exists.
func (o Options) complete() (Options, error) {
	if os.Geteuid() != 0 {
		return o, errors.New("lab: only root can make hosts: run it with sudo")
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	// One lab has one path: it is compared, and hidden in the hosts.
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	switch {
	case err == nil:
		o.Dir = filepath.Join(parent, filepath.Base(abs))
	case abs != DefaultDir: // whose parent lockDir makes
		return o, fmt.Errorf("lab: %w", err)
	}
	if o.Name != "" {
		return o, checkName(o.Name)
	}
	return o, nil
}

// checkName accepts what makes names of links (15 bytes, "vsf-NAME-999"), of
// cgroups and of tables that nobody else has.
func checkName(name string) error {
	if name == "" || len(name) > 7 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("lab name %q: one to seven of a-z and 0-9", name)
	}
	return nil
}

// Up makes the lab, or makes it whole again: hosts that run are left alone.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if os.Getenv(initEnv) != "" {
		// Without this, a test binary that forgot would start itself for ever.
		return nil, errors.New("lab: this program was started as a lab host's init and does not call lab.InitMain")
	}
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(sshdPath); err != nil {
		return nil, fmt.Errorf("lab: %w: apt-get install openssh-server", err)
	}
	unlock, err := lockDir(ctx, o.Dir, o.Log)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer unlock()
	lab, err := up(ctx, o)
	if err != nil {
		// A lab that was refused leaves no empty directory.
		_, removeErr := removeDir(o.Dir)
		return nil, errors.Join(fmt.Errorf("lab in %s: %w", o.Dir, err), removeErr)
	}
	return lab, nil
}

func up(ctx context.Context, o Options) (*Lab, error) {
	l, err := prepareShared(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := l.startMissing(ctx, o.Log); err != nil {
		return nil, fmt.Errorf("%w; the lab is not complete: vsfleet lab up continues, vsfleet lab down removes it", err)
	}
	lab, err := l.describe(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	return lab, lab.writeFiles()
}

// prepareShared sets up what the hosts share: the lab's name, files and network.
func prepareShared(ctx context.Context, o Options) (*launch, error) {
	s, fresh, err := resolveState(o)
	if err != nil {
		return nil, err
	}
	reg, err := openRegistry(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	defer reg.close()
	if !s.Subnet.IsValid() {
		if s.Subnet, err = freeSubnet(); err != nil {
			return nil, err
		}
	}
	if s.Hosts > capacity(s.Subnet) {
		return nil, fmt.Errorf("%d hosts do not fit into %s: choose a wider network with --subnet", s.Hosts, s.Subnet)
	}
	if err := s.checkUnused(reg); err != nil {
		return nil, err
	}
	if err := reg.claim(s.Name, o.Dir); err != nil {
		return nil, err
	}
	if fresh {
		// Whatever still runs under this name has lost its files.
		if err := s.clearKernel(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.write(o.Dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(o.Dir, hostsDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	l := &launch{state: s, dir: o.Dir}
	if l.bridge, err = s.makeBridge(); err != nil {
		return nil, err
	}
	if err := s.filterPackets(); err != nil {
		return nil, err
	}
	if err := reg.enableForwarding(); err != nil {
		return nil, err
	}
	if l.cgroup, err = labCgroup(s.Name); err != nil {
		return nil, err
	}
	if err := l.cgroup.make(); err != nil {
		return nil, err
	}
	if err := l.cgroup.delegate(); err != nil {
		return nil, fmt.Errorf("hand controllers to lab hosts: %w", err)
	}
	if _, l.authorized, err = keyPair(filepath.Join(o.Dir, identityFile), "vsfleet-"+s.Name); err != nil {
		return nil, err
	}
	if l.resolver, err = resolvConf(); err != nil {
		return nil, err
	}
	return l, nil
}

// resolveState returns the state of the lab in o.Dir, or that of a new one.
func resolveState(o Options) (s *state, fresh bool, err error) {
	if s, err = readState(o.Dir); err != nil {
		return nil, false, err
	}
	if s == nil {
		if err := checkNewDir(o.Dir); err != nil {
			return nil, false, err
		}
		s, fresh = &state{Name: o.Name, Hosts: defaultHosts, Subnet: o.Subnet.Masked()}, true
		if s.Name == "" {
			s.Name = defaultName
		}
		if o.Hosts > 0 {
			s.Hosts = o.Hosts
		}
	}
	if o.Name != "" && o.Name != s.Name {
		return nil, false, fmt.Errorf("it is named %q and not %q: take it down first", s.Name, o.Name)
	}
	if o.Subnet.IsValid() {
		if !o.Subnet.Addr().Is4() || o.Subnet.Bits() > 30 {
			return nil, false, fmt.Errorf("--subnet %s: an IPv4 network of /30 or wider is needed", o.Subnet)
		}
		if o.Subnet.Masked() != s.Subnet {
			return nil, false, fmt.Errorf("its network is %s and not %s: take it down first", s.Subnet, o.Subnet)
		}
	}
	s.Hosts = max(s.Hosts, o.Hosts)
	return s, fresh, nil
}

// checkNewDir refuses to make a lab among other files, which Down could not
// tell from the lab's.
func checkNewDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != stateFile+newSuffix {
			return fmt.Errorf("there are files, %s among them, and no lab: choose another --dir", e.Name())
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return errors.New("this is an overlayfs, which cannot keep the layers of another one: choose a --dir on a real filesystem")
	}
	return nil
}

// startMissing starts the hosts that do not run or do not answer.
func (l *launch) startMissing(ctx context.Context, log func(string)) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(16) // a hundred hosts at once only wait for each other
	for n := 1; n <= l.Hosts; n++ {
		all.Go(func() error {
			err := l.startIfMissing(ctx, n, log)
			if err != nil {
				return fmt.Errorf("start %s: %w", hostName(n), err)
			}
			return nil
		})
	}
	return all.Wait()
}

func (l *launch) startIfMissing(ctx context.Context, n int, log func(string)) error {
	connected, err := l.reconnect(l.bridge, n)
	if err != nil {
		return err
	}
	// One that runs and is too busy to greet at once is not one to be ended.
	for until := time.Now().Add(10 * time.Second); connected; {
		h, err := l.inspect(ctx, l.cgroup, n)
		if err != nil || h.SSH {
			return err
		}
		if h.PID == 0 || time.Now().After(until) {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err := l.start(ctx, n); err != nil {
		return err
	}
	log(fmt.Sprintf("%s is up at %s", hostName(n), l.address(n)))
	return nil
}

// describe looks at each host as it is now.
func (s *state) describe(ctx context.Context, dir string) (*Lab, error) {
	g, err := labCgroup(s.Name)
	if err != nil {
		return nil, err
	}
	lab := &Lab{
		Name: s.Name, Dir: dir, Subnet: s.Subnet,
		Hosts:      make([]Host, s.Hosts),
		Inventory:  filepath.Join(dir, inventoryFile),
		KnownHosts: filepath.Join(dir, knownHostsFile),
		Identity:   filepath.Join(dir, identityFile),
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(64)
	for i := range lab.Hosts {
		all.Go(func() (err error) {
			lab.Hosts[i], err = s.inspect(ctx, g, i+1)
			return err
		})
	}
	return lab, all.Wait()
}

// Status describes the lab in o.Dir and changes nothing. The error wraps
// fs.ErrNotExist when there is none.
func Status(ctx context.Context, o Options) (*Lab, error) {
	dir := o.Dir
	if dir == "" {
		dir = DefaultDir
	}
	s, err := readState(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if s == nil {
		return nil, fmt.Errorf("no lab in %s: %w: begin with vsfleet lab up", dir, fs.ErrNotExist)
	}
	return s.describe(ctx, dir)
}
