package backup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// A Place is a directory, on this machine or on another one. All names are relative to it.
type Place interface {
	fmt.Stringer
	MakeDir(name string) error
	Create(name string) (File, error) // it must not be there
	Open(name string) (File, error)
	Rename(from, to string) error // to may be there
	Remove(name string) error
	Stat(name string) (fs.FileInfo, error)
	List(name string) ([]fs.FileInfo, error)
	// Sync returns when renamed files are on the disk.
	Sync() error
	Free() (free, all uint64, err error) // all is 0 if nobody knows
	Close() error
}

// A File is open.
type File interface {
	io.ReadWriteCloser
	io.ReaderAt
	Sync() error
	Stat() (fs.FileInfo, error)
}

// local is a directory of this machine.
type local struct{ dir string }

// Local returns a directory of this machine.
func Local(dir string) Place { return local{dir} }

func (l local) String() string               { return l.dir }
func (l local) at(name string) string        { return filepath.Join(l.dir, name) }
func (l local) MakeDir(name string) error    { return os.MkdirAll(l.at(name), 0o700) }
func (l local) Remove(name string) error     { return os.Remove(l.at(name)) }
func (l local) Rename(from, to string) error { return os.Rename(l.at(from), l.at(to)) }
func (l local) Close() error                 { return nil }

func (l local) Create(name string) (File, error) {
	return os.OpenFile(l.at(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func (l local) Open(name string) (File, error) { return os.Open(l.at(name)) }

func (l local) Stat(name string) (fs.FileInfo, error) { return os.Stat(l.at(name)) }

func (l local) List(name string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(l.at(name))
	if err != nil {
		return nil, err
	}
	var list []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	return list, nil
}

func (l local) Sync() error {
	f, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", l.dir, err)
	}
	return linux.SyncDir(l.dir)
}

func (l local) Free() (free, all uint64, err error) {
	var st unix.Statfs_t
	err = unix.Statfs(l.dir, &st)
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), err
}

// remote is a directory of a machine with an SFTP server.
type remote struct {
	client *sftp.Client
	dir    string
	name   string
	hangUp func() error
}

// Remote returns the directory of another machine whose SFTP server reads w and writes r.
// hangUp ends the connection.
func Remote(name, dir string, r io.Reader, w io.WriteCloser, hangUp func() error) (Place, error) {
	client, err := sftp.NewClientPipe(r, w, sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, fmt.Errorf("%s: sftp: %w", name, err)
	}
	return remote{client, dir, name + ":" + dir, hangUp}, nil
}

func (r remote) String() string        { return r.name }
func (r remote) at(name string) string { return path.Join(r.dir, name) }

// of names the file that an error is about: those of SFTP do not.
func (r remote) of(name string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", path.Join(r.name, name), err)
	}
	return err
}

// MakeDir makes a directory, and those above it; what is of the place is for its user alone.
func (r remote) MakeDir(name string) error {
	dir := r.at(name)
	_, err := r.client.Stat(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return r.of(name, err)
	}
	switch above := path.Dir(name); {
	case name == "":
		err = r.client.MkdirAll(path.Dir(r.dir))
	case above == ".":
		err = r.MakeDir("")
	default:
		err = r.MakeDir(above)
	}
	if err == nil {
		err = r.client.Mkdir(dir)
	}
	if err == nil {
		err = r.client.Chmod(dir, 0o700)
	}
	if _, serr := r.client.Stat(dir); err != nil && serr == nil {
		err = nil // another one was faster
	}
	return r.of(name, err)
}

func (r remote) Create(name string) (File, error) {
	f, err := r.client.OpenFile(r.at(name), os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, r.of(name, err)
	}
	return remoteFile{f}, r.of(name, f.Chmod(0o600))
}

func (r remote) Open(name string) (File, error) {
	f, err := r.client.Open(r.at(name))
	return remoteFile{f}, r.of(name, err)
}

type remoteFile struct{ *sftp.File }

// Sync does nothing where the server cannot: OpenSSH's can.
func (f remoteFile) Sync() error {
	err := f.File.Sync()
	if status := new(sftp.StatusError); errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxOpUnsupported {
		return nil
	}
	return err
}

func (r remote) Rename(from, to string) error {
	return r.of(to, r.client.PosixRename(r.at(from), r.at(to)))
}

func (r remote) Remove(name string) error { return r.of(name, r.client.Remove(r.at(name))) }

func (r remote) Stat(name string) (fs.FileInfo, error) {
	info, err := r.client.Stat(r.at(name))
	return info, r.of(name, err)
}

func (r remote) List(name string) ([]fs.FileInfo, error) {
	list, err := r.client.ReadDir(r.at(name))
	return list, r.of(name, err)
}

func (r remote) Sync() error { return nil } // SFTP cannot

func (r remote) Free() (free, all uint64, err error) {
	st, err := r.client.StatVFS(r.dir)
	if err != nil {
		return 0, 0, nil // an extension of OpenSSH's
	}
	return st.FreeSpace(), st.TotalSpace(), nil
}

func (r remote) Close() error {
	r.client.Close()
	return r.hangUp()
}

// write writes a file beside its place, and renames it to the name that put returns; "" has it
// removed.
func write(p Place, put func(w io.Writer) (name string, err error)) error {
	at := path.Join(newDir, rand.Text())
	f, err := p.Create(at)
	if err != nil {
		return err
	}
	name, err := put(f)
	if err == nil && name != "" {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil && name != "" {
		err = p.Rename(at, name)
	}
	if err != nil || name == "" {
		err = errors.Join(err, p.Remove(at))
	}
	return err
}
