package linux

import (
	"errors"
	"io/fs"
	"os"
)

// Names returns the names in a directory in no order, and the directory, which is to be
// closed. A directory that is not there is nil and has none.
func Names(path string) (dir *os.File, names []string, err error) {
	dir, err = Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if names, err = dir.Readdirnames(-1); err != nil {
		dir.Close()
		return nil, nil, err
	}
	return dir, names, nil
}
