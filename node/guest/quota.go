package guest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/vsyntax"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
	"github.com/vsfleet/vsfleet/node/quota"
)

// Disk limits of a guest are those of a project of the filesystem that has its own
// files. The project's id is that of the guest's root on the host.
func projectOf(xid int) int { return procctx.BaseID(xid) }

// readDisk reads dlimits/N: the limits of a directory, which is the guest's own root or
// one above it. Spaces are in KiB, and -1 means no limit.
func (c *Config) readDisk(t *tree) error {
	read := ""
	for _, n := range t.subdirs("dlimits") {
		dir := "dlimits/" + n
		if t.has(dir + "/disabled") {
			continue
		}
		at := t.scalar(dir + "/directory")
		if at == "" {
			return fmt.Errorf("%s/directory: want the directory that is limited, as %s", dir, c.Root)
		}
		if kept := t.scalar(dir + "/reserved"); kept != "" && kept != "0" {
			c.Unread = append(c.Unread, api.Unread{File: dir + "/reserved", Why: "a project quota keeps nothing for the guest's root: use dlimits/N/space_soft"})
		}
		if at = resolved(at); !within(resolved(c.Root), at) {
			c.Unread = append(c.Unread, api.Unread{File: dir, Refuses: true,
				Why: fmt.Sprintf("%s is not the directory of the guest's own files (%s), which alone has a limit", at, c.Root)})
			continue
		}
		if read != "" {
			return fmt.Errorf("%s: %s limits the same files: remove one", dir, read)
		}
		read = dir
		for file, field := range map[string]*int64{
			"space_total": &c.Limits.DiskBytes, "space_soft": &c.Limits.DiskSoftBytes,
			"inodes_total": &c.Limits.Inodes, "inodes_soft": &c.Limits.InodesSoft,
		} {
			text := t.scalar(dir + "/" + file)
			if text == "" || text == "-1" {
				continue
			}
			v, err := vsyntax.Limit(text)
			if err != nil || v > 1<<52 {
				return fmt.Errorf("%s/%s: want a number, or -1 for no limit, not %q", dir, file, text)
			}
			if *field = int64(v); strings.HasPrefix(file, "space") {
				*field *= 1024
			}
		}
	}
	return nil
}

// diskFiles returns the contents of dlimits/0.
func diskFiles(l setting.Limits, root string) map[string]string {
	number := func(n, unit int64) string {
		if n == 0 {
			return "-1\n"
		}
		return strconv.FormatInt((n+unit-1)/unit, 10) + "\n"
	}
	if !l.Disk() {
		return nil
	}
	files := map[string]string{
		"directory":   root + "\n",
		"space_total": number(l.DiskBytes, 1024), "inodes_total": number(l.Inodes, 1), "reserved": "0\n",
	}
	if l.DiskSoftBytes != 0 {
		files["space_soft"] = number(l.DiskSoftBytes, 1024)
	}
	if l.InodesSoft != 0 {
		files["inodes_soft"] = number(l.InodesSoft, 1)
	}
	list := map[string]string{}
	for name, content := range files {
		list["dlimits/0/"+name] = content
	}
	return list
}

func quotaOf(l api.Limits) quota.Limits {
	return quota.Limits{Space: l.DiskBytes, SoftSpace: l.DiskSoftBytes, Inodes: l.Inodes, SoftInodes: l.InodesSoft}
}

// ownDirs returns the directories whose files are a guest's own.
func ownDirs(sp procctx.Spec) []string {
	dirs := []string{sp.Root.Upper}
	if sp.Root.Image != "" {
		dirs = append(dirs, sp.Root.Work) // the kernel renames from one to the other
	}
	return dirs
}

// limitDisk puts the guest's files into its project, unless they are, and limits that.
// Without a limit, files that are in a project stay in the guest's.
func (s *start) limitDisk(ctx context.Context) error {
	project, limits := projectOf(s.config.Context), s.config.Limits
	if limits.Disk() {
		if err := quota.Able(s.spec.Root.Upper); err != nil {
			return fmt.Errorf("limit its disk space: %w", err)
		}
	}
	limited := limits.Disk()
	for _, dir := range slices.Backward(ownDirs(s.spec)) {
		now, all, err := quota.Marked(dir)
		if err != nil {
			return err
		}
		limited = limited || now != 0
		if !limited || all && now == project {
			continue
		}
		if err := quota.Mark(ctx, dir, project); err != nil {
			return err
		}
	}
	if !limited {
		return nil
	}
	err := quota.Set(s.spec.Root.Upper, project, quotaOf(limits))
	if !limits.Disk() && quota.IsUnable(quota.Able(s.spec.Root.Upper)) {
		return nil // nothing limits it
	}
	return err
}

// countDisk puts the empty directories of a new guest into its project, if the
// filesystem has projects: then what the guest uses is counted, and a limit can be set
// while it runs.
func (h *Host) countDisk(ctx context.Context, g api.Guest) error {
	err := quota.Able(h.data(g.Name))
	if quota.IsUnable(err) {
		return nil
	}
	for _, dir := range []string{h.rootDir(g.Name), h.workDir(g.Name)} {
		if err == nil {
			err = quota.Mark(ctx, dir, projectOf(g.Context))
		}
	}
	if err == nil {
		err = quota.Set(h.rootDir(g.Name), projectOf(g.Context), quota.Limits{}) // of an earlier guest
	}
	return err
}

// quotaLive changes the disk limits of a running guest.
func (g *Guest) quotaLive(c Config, runs *api.Guest) error {
	to := quotaOf(c.Limits)
	if to == quotaOf(runs.Limits) {
		return nil
	}
	root := resolved(c.Root)
	project := projectOf(g.noted.Context)
	if now, all, err := quota.Marked(root); err != nil || !all || now != project {
		return errors.Join(err, fmt.Errorf("limit its disk space: its files in %s are not in a quota project yet: restart it", filepath.Clean(root)))
	}
	if err := quota.Able(root); err != nil {
		return fmt.Errorf("limit its disk space: %w", err)
	}
	if err := quota.Set(root, project, to); err != nil {
		return err
	}
	l := &runs.Limits
	l.DiskBytes, l.DiskSoftBytes, l.Inodes, l.InodesSoft = c.Limits.DiskBytes, c.Limits.DiskSoftBytes, c.Limits.Inodes, c.Limits.InodesSoft
	return nil
}

// DiskCounters returns what a running guest uses of its disk limits. Nothing is counted
// of files that are in no project.
func (h *Host) DiskCounters(name string) ([]api.Counter, error) {
	space, files := api.Counter{Resource: "disk", Bytes: true}, api.Counter{Resource: "inodes"}
	list := func() []api.Counter { return []api.Counter{space, files} }
	st, err := h.readNotes(name)
	if err != nil || st.Root == "" {
		return list(), err
	}
	project := projectOf(st.Context)
	if now, all, err := quota.Marked(st.Root); err != nil || !all || now != project || quota.Able(st.Root) != nil {
		return list(), err
	}
	u, err := quota.Get(st.Root, project)
	limit := func(n int64) *int64 {
		if n == 0 {
			return nil
		}
		return &n
	}
	space.Current, space.Soft, space.Hard = &u.Space, limit(u.SoftSpace), limit(u.Limits.Space)
	files.Current, files.Soft, files.Hard = &u.Inodes, limit(u.SoftInodes), limit(u.Limits.Inodes)
	return list(), err
}
