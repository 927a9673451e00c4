package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/backup"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Saved is the result of a backup: its path.
type Saved = fanout.Result[inventory.Instance, string]

// Backups opens a directory of backups: one of this machine, or HOST:DIRECTORY. The host is one
// of the inventory, or what ssh takes. The directory is that of the user that logs in.
func (a *Access) Backups(ctx context.Context, where string, open func(context.Context, backup.Place) (*backup.Store, error)) (*backup.Store, error) {
	name, dir, far := strings.Cut(where, ":")
	if !far || name == "" || strings.Contains(name, "/") {
		return open(ctx, backup.Local(where))
	}
	host := &inventory.Host{Name: name, Address: name}
	if user, address, given := strings.Cut(name, "@"); given {
		host.Address, host.SSH.User = address, user
	}
	for _, h := range a.Hosts {
		if h.Name == host.Address {
			known := *h
			known.SSH.User = cmp.Or(host.SSH.User, h.SSH.User)
			host = &known
		}
	}
	conn, err := a.Dial(ctx, host)
	if err != nil {
		return nil, err
	}
	s, err := conn.Subsystem(ctx, "sftp")
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: its sshd has no sftp: %w", name, err)
	}
	ended := context.AfterFunc(ctx, func() { conn.Close() })
	place, err := backup.Remote(name, cmp.Or(dir, "."), s.Stdout, s.Stdin, func() error {
		ended()
		return conn.Close()
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return open(ctx, place)
}

// Backup makes a backup of each guest. A running guest goes on while its files are read, and
// stands still, or is stopped, while what has changed meanwhile is read again. note is called
// with what a backup lacks.
func (a *Access) Backup(ctx context.Context, guests []inventory.Instance, to *backup.Store, how api.SendHow, forks int, note func(string), watch fanout.Watch[inventory.Instance, string]) []report.Host {
	record := a.Record("guest backup", places(guests))
	defer record.End()
	host := func(r Saved) report.Host {
		h := report.HostOf(place(r.Host), r.Host.Host.Address, r.Outcome, r.Err)
		h.Text = r.Value
		return h
	}
	var hosts []report.Host
	for _, r := range fanout.Each(ctx, guests, fanout.Limits{Forks: forks, Timeout: a.Timeout}, func(ctx context.Context, g inventory.Instance) (string, error) {
		return a.backup(ctx, g, to, how, note)
	}, recorded(record, watch, host)) {
		hosts = append(hosts, host(r))
	}
	return hosts
}

func place(g inventory.Instance) string { return g.Host.Name + "/" + g.Guest.Name }

func places(guests []inventory.Instance) []string {
	names := make([]string, len(guests))
	for i, g := range guests {
		names[i] = place(g)
	}
	return names
}

func (a *Access) backup(ctx context.Context, g inventory.Instance, to *backup.Store, how api.SendHow, note func(string)) (path string, err error) {
	node, err := a.Open(ctx, g.Host)
	if err != nil {
		return "", err
	}
	defer node.Close()
	state, err := node.State(ctx)
	if err != nil {
		return "", err
	}
	now := guestOf(state, g.Guest.Name)
	if now == nil {
		return "", fmt.Errorf("%s has no guest %s", g.Host.Name, g.Guest.Name)
	}
	if len(now.Volumes) > 0 {
		note(fmt.Sprintf("%s: its volumes are not in the backup (%s)", place(g), volumes(now.Guest)))
	}
	w, err := to.Begin(ctx, g.Host.Name, g.Guest.Name)
	if err != nil {
		return "", err
	}
	head := backup.Head{Host: g.Host.Name, How: string(how), Guest: now.Guest, Address: state.Host.DefaultAddress}
	rounds := []api.SendHow{how}
	if now.Status == api.Running {
		rounds = []api.SendHow{api.SendLive, how}
	}
	for _, how := range rounds {
		head.Taken = time.Now().Truncate(time.Second)
		sent, err := takeRound(ctx, node, w, api.SendGuest{Guest: g.Guest.Name, How: how, Index: true, Since: w.Since()})
		if err != nil {
			return "", err
		}
		head.Running, head.Image, head.Guest.Image = head.Running || sent.Running, sent.Image, sent.Image
	}
	return w.Finish(head)
}

// takeRound adds a round that a host sends to a backup.
func takeRound(ctx context.Context, node *Node, w *backup.Writing, req api.SendGuest) (sent api.SentGuest, err error) {
	index, known := io.Pipe()
	go func() { known.CloseWithError(w.Index(known)) }()
	defer index.Close()
	err = piped(ctx,
		func(ctx context.Context, to io.Writer) (err error) {
			sent, err = node.SendGuest(ctx, req, remote.Streams{In: index, Out: to})
			return err
		},
		func(ctx context.Context, r io.Reader) error {
			return w.Round(ctx, r)
		})
	if err == nil {
		w.Ended(sent.Begun)
	}
	return sent, err
}

// BackupRecords returns the records of a directory's backups.
func BackupRecords(all []backup.Listed) []report.BackupRecord {
	records := []report.BackupRecord{}
	for _, b := range all {
		r := report.BackupRecord{Backup: b.Name, Host: b.Host, Guest: b.Guest.Name, Taken: b.Taken, Running: b.Running, Image: b.Image, Files: b.Files, Size: b.Size, Added: b.Added}
		if b.Err != nil {
			r.Problem = b.Err.Error()
		}
		records = append(records, r)
	}
	return records
}

// volumes returns where a guest has its volumes.
func volumes(g api.Guest) string {
	var list []string
	for _, v := range g.Volumes {
		list = append(list, v.Target)
	}
	return strings.Join(list, ", ")
}

func guestOf(state api.State, name string) *api.GuestState {
	i := slices.IndexFunc(state.Guests, func(g api.GuestState) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &state.Guests[i]
}

// RestoreOptions are how a guest is restored.
type RestoreOptions struct {
	Start    bool
	Progress func(string) // called with what is done
}

// Restore makes a guest of a backup. If the inventory has the guest on that host, its
// settings are the inventory's, else those of the backup. The image is brought from another
// host of the inventory if that host lacks it. A guest that is there is never touched.
func (a *Access) Restore(ctx context.Context, inv *inventory.Inventory, archive *backup.Backup, to inventory.Instance, opt RestoreOptions) report.Host {
	return a.changed("guest restore", to, func() error { return a.restore(ctx, inv, archive, to, opt) })
}

func (a *Access) restore(ctx context.Context, inv *inventory.Inventory, archive *backup.Backup, to inventory.Instance, opt RestoreOptions) error {
	node, err := a.Open(ctx, to.Host)
	if err != nil {
		return err
	}
	defer node.Close()
	state, release, err := a.lease(ctx, node, "guest restore")
	if err != nil {
		return err
	}
	defer release()
	steps := []api.Step{{Kind: api.StepStart, Name: to.Guest.Name}}
	settings := archived(archive.Head, to, state.Host)
	if listed(to) {
		if settings, steps, err = a.wanted(ctx, inv, to, state); err != nil {
			return err
		}
	}
	if guestOf(state, to.Guest.Name) != nil {
		return fmt.Errorf("%s has a guest %s: delete it first (vsfleet guest delete %s), or name another with --to", to.Host.Name, to.Guest.Name, place(to))
	}
	settings.Image = archive.Image
	if err := a.bring(ctx, inv, archive.Image, to.Host, node, state, opt.Progress); err != nil {
		return err
	}
	err = piped(ctx, archive.Data, func(ctx context.Context, r io.Reader) error {
		return node.ReceiveGuest(ctx, api.ReceiveGuest{Guest: settings, Create: true}, r)
	})
	if err != nil {
		return err
	}
	if !opt.Start {
		return nil
	}
	return take(ctx, node, steps)
}

// archived returns the settings of a backup as they are on a host.
func archived(head backup.Head, to inventory.Instance, host api.Host) api.Guest {
	settings := head.Guest
	if settings.Name != to.Guest.Name || head.Host != to.Host.Name {
		settings.Context = 0 // another guest may have it there
	}
	settings.Name = to.Guest.Name
	settings.Network.Addresses = ofHost(settings.Network.Addresses, head.Address, host)
	return settings
}

// ofHost replaces the address that a guest shares with one host by that of another one.
func ofHost(addresses []netip.Prefix, was netip.Prefix, host api.Host) []netip.Prefix {
	addresses = slices.Clone(addresses)
	for i, address := range addresses {
		if address == was && host.DefaultAddress.IsValid() {
			addresses[i] = host.DefaultAddress
		}
	}
	return addresses
}

// listed reports whether the inventory has the guest.
func listed(g inventory.Instance) bool { return g.Guest.Image != "" }

// wanted returns the settings that the inventory gives a guest which its host lacks, and the
// steps that follow its creation.
func (a *Access) wanted(ctx context.Context, inv *inventory.Inventory, g inventory.Instance, state api.State) (api.Guest, []api.Step, error) {
	host := *g.Host
	host.Guests = []*inventory.Guest{g.Guest}
	if secrets := inventory.Sealed([]*inventory.Host{&host}); len(secrets) > 0 {
		if err := a.Keys.Open(ctx, secrets); err != nil {
			return api.Guest{}, nil, err
		}
	}
	state.Guests = slices.DeleteFunc(slices.Clone(state.Guests), func(s api.GuestState) bool { return s.Name == g.Guest.Name })
	p := plan.Make(&host, state, api.FilesAnswer{}, plan.Rules{Image: inv.Image, Versions: a.Versions})
	if len(p.Refused) > 0 {
		return api.Guest{}, nil, p.Refused[0].Err
	}
	i := slices.IndexFunc(p.Steps, func(s api.Step) bool { return s.Kind == api.StepCreate })
	if i < 0 {
		return api.Guest{}, nil, fmt.Errorf("the inventory wants no guest %s on %s", g.Guest.Name, g.Host.Name)
	}
	settings := *p.Steps[i].Guest
	return settings, slices.Delete(slices.Clone(p.Steps), i, i+1), nil
}

// lease takes the lease of a host and asks for its state. release gives the lease back.
func (a *Access) lease(ctx context.Context, node *Node, reason string) (state api.State, release func(), err error) {
	held, err := node.Lease(ctx, api.Lease{Wait: a.LockWait, Holder: api.Holder{Run: report.NewID(time.Now()), Owner: Owner(), PID: os.Getpid(), Reason: reason}})
	if err == nil && !held.Held {
		err = fmt.Errorf("the host is being changed by %s (%s): wait longer with --lock-wait", held.By.Owner, held.By.Reason)
	}
	if err == nil {
		state, err = node.State(ctx)
	}
	return state, func() { _ = node.Release(context.WithoutCancel(ctx)) }, err
}

// take carries steps out on a host, one after the other.
func take(ctx context.Context, node *Node, steps []api.Step) error {
	req := api.Apply{Run: report.NewID(time.Now()), Steps: steps, InOrder: true}
	for _, s := range steps {
		if s.Kind == api.StepHealth && s.Health.NeedsReady() {
			req.Ready = append(req.Ready, s.Name)
		}
	}
	answer, err := node.Apply(ctx, req, func(api.Event) {})
	if err != nil {
		return err
	}
	for _, r := range answer.Results {
		if r.Outcome == api.Failed {
			return errors.New(r.Error)
		}
	}
	return nil
}

// imageForks is how many hosts are asked for an image at a time.
const imageForks = 20

// bring copies an image to a host that lacks it.
func (a *Access) bring(ctx context.Context, inv *inventory.Inventory, id string, to *inventory.Host, node *Node, state api.State, say func(string)) error {
	has := func(s api.State) bool {
		return slices.ContainsFunc(s.Images, func(i api.Image) bool { return i.ID == id })
	}
	if id == "" || has(state) {
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(inv.Hosts), func(h *inventory.Host) bool { return h == to })
	var from *inventory.Host
	for _, answer := range a.State(ctx, others, imageForks, Watch[api.State]{}) {
		if from == nil && answer.Err == nil && has(answer.Value) {
			from = answer.Host
		}
	}
	if from == nil {
		return fmt.Errorf("its image %s is on no host that could be reached: the guest's files are of no use without it; build it with the same result, or bring back a host that has it", id)
	}
	say(fmt.Sprintf("copy image %.19s from %s to %s", id, from.Name, to.Name))
	return a.on(ctx, from, func(source *remote.Host) error {
		return piped(ctx,
			func(ctx context.Context, w io.Writer) error {
				return source.ExportImage(ctx, api.ExportImage{ID: id}, w)
			},
			func(ctx context.Context, r io.Reader) error { return node.ImportImage(ctx, id, r) })
	})
}
