package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Down ends the lab's hosts and removes everything that Up has made.
func (l *Lab) Down(ctx context.Context) error {
	return Down(ctx, Options{Dir: l.Dir, Name: l.Name})
}

// Down ends the hosts of the lab in o.Dir and removes everything that Up has
// made, in whatever state it is. Where there is no lab it does nothing.
func Down(ctx context.Context, o Options) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	unlock, err := lockDir(ctx, o.Dir, o.Log)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer unlock()
	if err := down(ctx, o); err != nil {
		return fmt.Errorf("take down the lab in %s: %w", o.Dir, err)
	}
	return nil
}

// down goes from the processes to the files, and drops what leads it to each,
// the state in o.Dir and the claim in the registry, only once it is gone.
func down(ctx context.Context, o Options) error {
	s, err := readState(o.Dir)
	if err != nil {
		return err
	}
	if s != nil && o.Name != "" && o.Name != s.Name {
		return fmt.Errorf("it is named %q and not %q", s.Name, o.Name)
	}
	// Held to the end: nobody takes the name while it is cleared.
	reg, err := openRegistry(ctx, o.Log)
	if err != nil {
		return err
	}
	defer reg.close()
	if s == nil {
		if s, err = reg.claimant(o.Dir); err != nil {
			return err
		}
	}
	if s != nil {
		// After a reboot another lab may have taken the name: what is in the
		// kernel is that one's.
		rec, taken, err := reg.read(s.Name)
		if err != nil {
			return err
		}
		ours := !taken || rec.Dir == o.Dir
		if ours {
			if err := s.clearKernel(ctx); err != nil {
				return err
			}
		}
		if err := removeFiles(o.Dir); err != nil {
			return err
		}
		if ours {
			if err := reg.release(s.Name); err != nil {
				return err
			}
		}
	}
	for _, file := range []string{stateFile, stateFile + newSuffix} {
		if err := removeTree(filepath.Join(o.Dir, file)); err != nil {
			return err
		}
	}
	removed, err := removeDir(o.Dir)
	if err == nil && !removed {
		o.Log(o.Dir + " stays: there are files in it which are not the lab's")
	}
	return err
}

// claimant finds the lab whose state was never written, or was lost. A claim
// is made before anything else, so that without one there is nothing.
func (reg *registry) claimant(dir string) (*state, error) {
	labs, err := reg.labs()
	if err != nil {
		return nil, err
	}
	for name, at := range labs {
		if at == dir {
			return &state{Name: name}, nil
		}
	}
	if len(labs) == 0 {
		return nil, reg.release("")
	}
	return nil, nil
}

// clearKernel ends every process of the lab and removes what is left of it in
// the kernel. Mounts and namespaces go with the processes.
func (s *state) clearKernel(ctx context.Context) error {
	g, err := labCgroup(s.Name)
	if err != nil {
		return err
	}
	if err := g.destroy(ctx); err != nil {
		return err
	}
	if err := removeLinks(s.Name); err != nil {
		return err
	}
	if s.Subnet.IsValid() { // else all that is known of the lab is its name
		if err := forgetConnections(s.Subnet); err != nil {
			return err
		}
	}
	return removeTable(s.Name)
}

// removeFiles removes the lab's files in dir, except for its state.
func removeFiles(dir string) error {
	if err := refuseMounts(dir); err != nil {
		return err
	}
	for _, name := range labFiles() {
		if err := removeTree(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// removeDir removes the lab's directory if it is empty.
func removeDir(dir string) (removed bool, err error) {
	dirs := []string{dir}
	if dir == DefaultDir {
		dirs = append(dirs, filepath.Dir(dir)) // made by complete
	}
	for _, d := range dirs {
		err := unix.Rmdir(d)
		if err == unix.ENOTEMPTY {
			return d != dir, nil
		}
		if err != nil {
			return false, &os.PathError{Op: "rmdir", Path: d, Err: err}
		}
	}
	return true, nil
}
