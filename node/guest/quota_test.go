package guest

import (
	"context"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/quota"
	"github.com/vsfleet/vsfleet/node/quota/quotatest"
)

// Disk limits need a kernel with project quotas, as test/kernel has it; elsewhere they
// are refused with the cure.
func TestDiskLimitsOfAGuest(t *testing.T) {
	for _, row := range []struct {
		fstype string
		quotas bool
	}{{"ext4", true}, {"xfs", true}, {"ext4", false}} {
		name := row.fstype
		if !row.quotas {
			name += " without quotas"
		}
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir, bounds := quotatest.Mount(t, row.fstype, row.quotas)
			h := host(t)
			h.DataDir = dir
			g := inMode(api.ModeShared, "disk", 127, "sleep", "1000")
			g.Limits.DiskBytes, g.Limits.Inodes = 20<<20, 300
			must(t, h.Create(ctx, g))
			if !bounds {
				if err := h.Start(ctx, g.Name, Options{}); err == nil || !strings.Contains(err.Error(), "prjquota") {
					t.Errorf("error %v", err)
				}
				g.Limits = api.Limits{}
				_, err := h.Configure(ctx, g)
				must(t, err)
				must(t, h.Start(ctx, g.Name, Options{}))
				return
			}
			must(t, h.Start(ctx, g.Name, Options{}))
			inside := func(script string) (string, int) { return run(t, h, g.Name, "sh", "-c", script) }
			df := func() string {
				out, _ := inside("busybox df -k / | busybox tail -n 1 | busybox awk '{print $2}'; busybox df -i / | busybox tail -n 1 | busybox awk '{print $2}'")
				return strings.ReplaceAll(out, "\n", " ")
			}
			if got := df(); got != "20480 300" {
				t.Errorf("df says %s, want 20480 300", got)
			}
			const write = "busybox dd if=/dev/zero of=/big bs=1M count=30 2>&1"
			if out, code := inside(write); code == 0 {
				t.Errorf("30 MiB of 20: %s", out)
			}
			if out, code := inside("busybox rm /big; i=0; while [ $i -lt 400 ]; do >/etc/f$i || exit 1; i=$((i + 1)); done"); code == 0 {
				t.Errorf("400 files of 300: %s", out)
			}
			// Its root owns the files, and cannot bring them into another project.
			for _, attack := range []string{"busybox chattr -p 0 /", "busybox chattr -p 0 /etc", "busybox chattr -p 5 /etc/hosts"} {
				if out, code := inside(attack); code == 0 {
					t.Errorf("%s: %s", attack, out)
				}
			}
			// At once.
			g.Limits.DiskBytes, g.Limits.DiskSoftBytes, g.Limits.Inodes = 60<<20, 50<<20, 1000
			if outcome, err := h.Configure(ctx, g); err != nil || outcome != api.Changed {
				t.Fatal(outcome, err)
			}
			if got := df(); got != "51200 1000" {
				t.Errorf("df says %s, want 51200 1000", got)
			}
			if out, code := inside(write); code != 0 {
				t.Errorf("30 MiB of 60: %s", out)
			}
			st, err := h.State(g.Name)
			if err != nil || st.Runs != nil || st.Limits.DiskSoftBytes != 50<<20 || st.Limits.Inodes != 1000 {
				t.Errorf("state %+v, %v", st, err)
			}
			u, err := quota.Get(dir, projectOf(127))
			if err != nil || u.Space < 30<<20 || u.Inodes < 290 {
				t.Errorf("usage %+v, %v", u, err)
			}
			// Without a limit what it uses is counted all the same.
			g.Limits = api.Limits{}
			_, err = h.Configure(ctx, g)
			must(t, err)
			if u, err = quota.Get(dir, projectOf(127)); err != nil || u.Limits != (quota.Limits{}) || u.Space < 30<<20 {
				t.Errorf("lifted: %+v, %v", u, err)
			}
			// With another context, all goes into the project of that, before anybody
			// else may have the old one.
			_, err = h.Stop(ctx, g.Name)
			must(t, err)
			g.Context = 128
			_, err = h.Configure(ctx, g)
			must(t, err)
			must(t, h.Start(ctx, g.Name, Options{}))
			old, err := quota.Get(dir, projectOf(127))
			must(t, err)
			if u, err = quota.Get(dir, projectOf(128)); err != nil || old.Inodes != 0 || u.Space < 30<<20 {
				t.Errorf("moved: %+v, left %+v, %v", u, old, err)
			}
			must(t, h.Delete(ctx, g.Name))
			if u, err = quota.Get(dir, projectOf(128)); err != nil || u.Inodes != 0 {
				t.Errorf("deleted: %+v, %v", u, err)
			}
		})
	}
}
