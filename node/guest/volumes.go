package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
)

// volumesDir is the directory of the volumes of all guests. No guest's name begins with a
// dot. A volume belongs to no guest: its files have the ids of whichever guest uses it,
// as any file on disk, and it stays when that is deleted.
func (p Paths) volumesDir() string { return filepath.Join(p.DataDir, volumesName) }

const volumesName = ".volumes"

// makeVolumes makes the volumes that the guest uses and that are not there. Each is empty
// then, and its root's.
func (s *start) makeVolumes(context.Context) error {
	if len(s.config.Guest.Volumes) == 0 {
		return nil
	}
	dir := s.host.volumesDir()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, v := range s.config.Guest.Volumes {
		path := filepath.Join(dir, v.Source)
		err := os.Mkdir(path, 0o755)
		if err == nil {
			err = os.Chmod(path, 0o755) // whatever the umask
		} else if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("make volume %s: %w", v.Source, err)
		}
	}
	return nil
}

// Volumes lists the volumes of the host.
func (h *Host) Volumes(ctx context.Context) (list []api.Volume, err error) {
	entries, err := os.ReadDir(h.volumesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	users, err := h.volumeUsers()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if setting.ValidVolume(e.Name()) != nil {
			continue // being removed
		}
		bytes, err := size(ctx, filepath.Join(h.volumesDir(), e.Name()))
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", e.Name(), err)
		}
		list = append(list, api.Volume{Name: e.Name(), Bytes: bytes, Guests: users[e.Name()]})
	}
	return list, nil
}

// size adds up what is below a directory that a guest may be changing. Links are not
// followed.
func size(ctx context.Context, dir string) (bytes int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes, err
}

// volumeUsers returns the guests that have each volume.
func (h *Host) volumeUsers() (map[string][]string, error) {
	users := map[string][]string{}
	add := func(guest string, volumes []setting.Mount) {
		for _, v := range volumes {
			if !slices.Contains(users[v.Source], guest) {
				users[v.Source] = append(users[v.Source], guest)
			}
		}
	}
	names, err := h.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		c, err := h.Read(name)
		if err != nil {
			return nil, fmt.Errorf("guest %s, which may use volumes: %w", name, err)
		}
		add(name, c.Guest.Volumes)
	}
	holders, err := h.holders()
	if err != nil {
		return nil, err
	}
	for name, held := range holders { // with what they were started with
		if on, err := h.running(name); err != nil {
			return nil, err
		} else if on {
			add(name, held.Guest.Volumes)
		}
	}
	for _, list := range users {
		slices.Sort(list)
	}
	return users, nil
}

// ErrNoVolume means that the host has no such volume.
var ErrNoVolume = errors.New("no such volume")

// HasVolume refuses the name of a volume that is not there, not even half deleted.
func (h *Host) HasVolume(name string) error {
	if err := setting.ValidVolume(name); err != nil {
		return err
	}
	path := filepath.Join(h.volumesDir(), name)
	for _, path := range []string{path, filepath.Join(h.volumesDir(), ".deleted-"+name)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("%w: %s (%s is not there)", ErrNoVolume, name, path)
}

// DeleteVolume removes a volume that no guest has. It can be repeated after it was
// killed.
func (h *Host) DeleteVolume(ctx context.Context, name string) error {
	if err := h.HasVolume(name); err != nil {
		return err
	}
	gone := filepath.Join(h.volumesDir(), ".deleted-"+name)
	if err := h.setVolumeAside(ctx, name, gone); err != nil {
		return err
	}
	return imagetree.Remove(gone)
}

// setVolumeAside renames a volume, while no guest can claim it.
func (h *Host) setVolumeAside(ctx context.Context, name, gone string) error {
	_, unlock, err := h.lockClaims(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	users, err := h.volumeUsers()
	if err != nil {
		return err
	}
	if list := users[name]; len(list) > 0 {
		return fmt.Errorf("volume %s is that of guest %s: take it out of its configuration first", name, strings.Join(list, ", "))
	}
	path := filepath.Join(h.volumesDir(), name)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // set aside by a call that was killed
	}
	if err := imagetree.Remove(gone); err != nil {
		return err
	}
	return os.Rename(path, gone)
}
