package versions

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// Keeper answers and records for one run. Its methods may be called by several goroutines.
type Keeper struct {
	path string
	by   string // who holds versions: user@machine

	mu   sync.Mutex
	file File
}

// Open reads the file of an inventory.
func Open(path, by string) (*Keeper, error) {
	file, err := Read(path)
	return &Keeper{path: path, by: by, file: file}, err
}

// File returns what is known now.
func (k *Keeper) File() File {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.file
}

// Current returns the ID of the current version of an image, or "".
func (k *Keeper) Current(name, key, arch string) string {
	v, _ := k.File().Current(name, key, arch)
	return v.ID
}

// Number returns the version that an image's ID is, or 0.
func (k *Keeper) Number(id string) int {
	_, v, _ := k.File().Find(id)
	return v.Number
}

// Begin records the image that hosts use as the first version of its spec, if that has none:
// an update would leave nothing to go back to.
func (k *Keeper) Begin(ctx context.Context, image api.Image, arch, host string) error {
	return k.change(ctx, func(f *File) error {
		if _, known := f.Current(image.Spec.Name, image.Key, arch); !known {
			f.next(image, arch, host)
		}
		return nil
	})
}

// Built records an image that a host has built as the next version, unless it is that of a
// version.
func (k *Keeper) Built(ctx context.Context, image api.Image, arch, host string) error {
	return k.change(ctx, func(f *File) error {
		name, v, known := f.Find(image.ID)
		switch {
		case !known || v.Key != image.Key:
			f.next(image, arch, host)
		case v.Held != nil:
			return fmt.Errorf("what is built now is version %d, which is held: %s; release it with vsfleet image release %s %[1]d", v.Number, v.Held.Reason, name)
		}
		return nil
	})
}

// next adds a version. A second architecture of an update has the number of the first.
func (f *File) next(image api.Image, arch, host string) {
	number := f.Newest(image.Spec.Name)
	if now, _ := f.Current(image.Spec.Name, image.Key, arch); number == 0 || now.Number == number {
		number++
	}
	for _, v := range f.Images[image.Spec.Name] {
		if v.Number == number && (v.Key != image.Key || v.Arch == arch) {
			number++
			break
		}
	}
	f.Add(image.Spec.Name, Version{Number: number, ID: image.ID, Key: image.Key, Arch: arch, Built: image.Created, Source: image.Source, On: host})
}

// Failed holds the version with an ID that guests were put back from, and returns a line
// for the report, or "" if it is that of no version, or held already.
func (k *Keeper) Failed(ctx context.Context, id, reason string) (note string, err error) {
	if _, _, known := k.File().Find(id); !known {
		return "", nil
	}
	err = k.change(ctx, func(f *File) error {
		name, v, _ := f.Find(id)
		if f.Hold(name, v.Number, Hold{Since: now(), By: k.by, Reason: reason}) {
			note = fmt.Sprintf("image %s: version %d is held now, so no run uses it until vsfleet image release %[1]s %[2]d", name, v.Number)
		}
		return nil
	})
	return note, err
}

// Rollback holds the current versions of an image with a spec, and returns the version
// that was current and the one that is.
func (k *Keeper) Rollback(ctx context.Context, name, key, reason string) (from, to int, err error) {
	err = k.change(ctx, func(f *File) error {
		from, to = 0, 0
		other := 0                         // of another spec
		for _, v := range f.Images[name] { // the oldest first
			switch {
			case v.Held != nil:
			case v.Key != key:
				other = v.Number
			case v.Number > from:
				from, to = v.Number, from
			}
		}
		switch {
		case from == 0:
			return fmt.Errorf("image %s has no version to go back from: %s does not name one of this spec", name, FileName)
		case to == 0 && other > 0 && other < from:
			return fmt.Errorf("image %s: version %d was built from what the inventory said before: to go back to it, take back the change of its method, arguments or packages", name, other)
		case to == 0:
			return fmt.Errorf("image %s has no version before %d that is not held", name, from)
		}
		f.Hold(name, from, Hold{Since: now(), By: k.by, Reason: reason})
		return nil
	})
	return from, to, err
}

// Release lets a version be used again.
func (k *Keeper) Release(ctx context.Context, name string, number int) (changed bool, err error) {
	err = k.change(ctx, func(f *File) error {
		known := false
		for _, v := range f.Images[name] {
			known = known || v.Number == number
		}
		if !known {
			return fmt.Errorf("image %s has no version %d: vsfleet image versions %[1]s lists them", name, number)
		}
		changed = f.Release(name, number)
		return nil
	})
	return changed, err
}

func (k *Keeper) change(ctx context.Context, change func(*File) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Change(ctx, k.path, func(f *File) error {
		if err := change(f); err != nil {
			return err
		}
		k.file = *f
		return nil
	})
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
