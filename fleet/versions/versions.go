package versions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/inventory"
)

// FileName is the name of the file, beside the inventory.
const FileName = "images.lock"

// Version is a version of an image. Hosts of different architectures have different
// images: a number may have an ID for each.
type Version struct {
	Number int       `yaml:"version" json:"version"` // from 1
	ID     string    `yaml:"id" json:"id"`           // "sha256:…"
	Key    string    `yaml:"spec" json:"spec"`       // api.ImageSpec.Key of what it was built from
	Arch   string    `yaml:"arch" json:"arch"`
	Built  time.Time `yaml:"built" json:"built"`
	Source string    `yaml:"source,omitempty" json:"source,omitempty"` // of a registry: as in api.Image
	On     string    `yaml:"on,omitempty" json:"on,omitempty"`         // the host that built it
	Held   *Hold     `yaml:"held,omitempty" json:"held,omitempty"`
}

// Hold is why a version is not to be used.
type Hold struct {
	Since  time.Time `yaml:"since" json:"since"`
	By     string    `yaml:"by" json:"by"` // user@machine
	Reason string    `yaml:"reason" json:"reason"`
}

// File is what images.lock says. The zero value is that of a missing file.
type File struct {
	Images map[string][]Version `yaml:"images"` // by name, the oldest first
}

// Path returns where the file of an inventory is: beside the first that defines an image.
// It is empty if none does.
func Path(inv *inventory.Inventory) string {
	if len(inv.Images) == 0 {
		return ""
	}
	return filepath.Join(filepath.Dir(inv.Images[0].Pos.File), FileName)
}

// Current returns the version of an image that guests are to have: the newest that is not
// held, among those built from a spec for an architecture.
func (f File) Current(name, key, arch string) (current Version, ok bool) {
	for _, v := range f.Images[name] {
		if v.Key == key && v.Arch == arch && v.Held == nil && v.Number > current.Number {
			current, ok = v, true
		}
	}
	return current, ok
}

// Kept returns the IDs of the current versions of all images, and of those that would be
// current after a rollback.
func (f File) Kept() []string {
	var ids []string
	for _, list := range f.Images {
		seen := map[string]int{} // by spec and architecture
		for _, v := range slices.Backward(list) {
			if what := v.Key + v.Arch; v.Held == nil && seen[what] < 2 {
				seen[what]++
				ids = append(ids, v.ID)
			}
		}
	}
	return ids
}

// Find returns the name and the version of an image's ID.
func (f File) Find(id string) (name string, v Version, ok bool) {
	for name, list := range f.Images {
		for _, v := range list {
			if v.ID == id {
				return name, v, true
			}
		}
	}
	return "", Version{}, false
}

// Newest returns the highest number of an image's versions, or 0.
func (f File) Newest(name string) (number int) {
	for _, v := range f.Images[name] {
		number = max(number, v.Number)
	}
	return number
}

// Add adds a version.
func (f *File) Add(name string, v Version) {
	if f.Images == nil {
		f.Images = map[string][]Version{}
	}
	f.Images[name] = append(f.Images[name], v)
	slices.SortStableFunc(f.Images[name], func(a, b Version) int { return a.Number - b.Number })
}

// Hold holds a version for all architectures, and reports whether it was not held before.
func (f File) Hold(name string, number int, hold Hold) (changed bool) {
	return f.each(name, number, func(v *Version) bool {
		if v.Held != nil {
			return false
		}
		v.Held = &hold
		return true
	})
}

// Release lets a version be used again, and reports whether it was held.
func (f File) Release(name string, number int) (changed bool) {
	return f.each(name, number, func(v *Version) bool {
		held := v.Held != nil
		v.Held = nil
		return held
	})
}

func (f File) each(name string, number int, do func(*Version) bool) (changed bool) {
	for i := range f.Images[name] {
		if v := &f.Images[name][i]; v.Number == number && do(v) {
			changed = true
		}
	}
	return changed
}

// most bounds the size of the file: some 50,000 versions.
const most = 16 << 20

// Read reads a file. One that is missing, or has no path, has no versions.
func Read(path string) (File, error) {
	if path == "" {
		return File{}, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("it has more than %d MiB", most>>20)
	}
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, err)
	}
	file, err := Parse(data)
	if err != nil {
		return File{}, fmt.Errorf("%s: %w; take it back from the repository of the inventory", path, err)
	}
	return file, nil
}

// Parse reads the content of a file.
func Parse(data []byte) (File, error) {
	var f File
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return File{}, fmt.Errorf("it cannot be read: %s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
	}
	for name, list := range f.Images {
		for i, v := range list {
			if err := check(v, list[:i]); err != nil {
				return File{}, fmt.Errorf("image %s, version %d: %w", name, v.Number, err)
			}
		}
	}
	return f, nil
}

// check refuses a version that says nothing, or something else than one before it.
func check(v Version, before []Version) error {
	hex, ok := strings.CutPrefix(v.ID, "sha256:")
	switch {
	case v.Number < 1:
		return errors.New("versions are numbered from 1")
	case !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "":
		return fmt.Errorf("id %q: want sha256: and 64 hexadecimal digits", v.ID)
	case v.Key == "" || v.Arch == "":
		return errors.New("it needs a spec and an arch")
	}
	for _, other := range before {
		if other.Number == v.Number && other.Arch == v.Arch && other.Key == v.Key {
			return fmt.Errorf("it is there twice for %s", v.Arch)
		}
	}
	return nil
}

const head = `# The versions of this fleet's images. Keep this file with the inventory.
# Written by vsfleet image update, rollback and release, and by apply when a version fails.
`

// Change reads a file, has it changed, and replaces it. If change returns an error, the
// file stays as it is. Others who change it wait.
func Change(ctx context.Context, path string, change func(*File) error) error {
	if path == "" {
		return errors.New("the inventory has no image")
	}
	lock, err := linux.LockDir(ctx, filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("lock the directory of %s: %w", path, err)
	}
	defer lock.Unlock()
	f, err := Read(path)
	if err != nil {
		return err
	}
	if err := change(&f); err != nil {
		return err
	}
	var text bytes.Buffer
	text.WriteString(head)
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(f), encoder.Close()); err != nil {
		return err
	}
	return linux.ReplaceFileSync(path, 0o644, func(w *os.File) error {
		_, err := w.Write(text.Bytes())
		return err
	})
}
