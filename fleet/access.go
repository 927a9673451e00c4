package fleet

import (
	"cmp"
	"context"
	"io"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/sshconfig"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/inventory/secret"
	"github.com/vsfleet/vsfleet/node/api"
)

// DefaultConnectTimeout is how long a connection may take, if neither a flag nor ssh_config says.
const DefaultConnectTimeout = transport.DefaultConnectTimeout

// Access describes how hosts are reached. Unset fields fall back to the inventory.
type Access struct {
	User, Identity, KnownHosts, Jump string
	Config                           string // an ssh_config file, or "none"
	HostKey                          HostKeyPolicy
	CanAsk                           bool // a person can be asked about host keys

	Password       string // of the users; keys are tried first
	BecomePassword string // for sudo or doas
	// Ask and Say communicate with the person at this machine: see [transport.Dialer].
	// Both may be nil.
	Ask func(ctx context.Context, question string, echo bool) (string, error)
	Say func(text string)

	Become         bool
	BecomeMethod   string // transport.Sudo or transport.Doas; empty: what the host has
	ConnectTimeout time.Duration
	LockWait       time.Duration // for other runs that change a host
	ConfirmWithin  time.Duration // of a change that could cut a host off; see rollout.Fleet
	// Timeout of each host, to answer a question or to end a command. If it is 0, a
	// question has five minutes, and a command has no timeout.
	Timeout time.Duration
	// Waiting, if not nil, is called when vsfleet must wait before it can reach a host.
	// It is called by many goroutines.
	Waiting func(host, why string)
	// Abort ends all connections when it ends; may be nil.
	Abort context.Context
	// Watch, if not nil, receives the events of all runs, in addition to watches of
	// single runs. It is called by many goroutines.
	Watch func(report.Event)

	// Keys decrypts the secrets of the inventory.
	Keys secret.Keys

	// Versions of the images of the inventory; nil: each has one.
	Versions rollout.Versions

	// Registry asks registries for images.
	Registry registry.Client

	// Hosts are all of the inventory: a jump may name one of them.
	Hosts []*inventory.Host

	prepare sync.Once // of the dialer
	dialer  transport.Dialer
	config  sshconfig.Resolver
	notesMu sync.Mutex
	notes   []string
}

// Dial connects to a host.
func (a *Access) Dial(ctx context.Context, h *inventory.Host) (*transport.Conn, error) {
	s, err := a.settings(ctx, h)
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, s)
}

func (a *Access) dial(ctx context.Context, s transport.Settings) (*transport.Conn, error) {
	conn, err := a.transport().Dial(ctx, s)
	if err == nil && a.Abort != nil {
		context.AfterFunc(a.Abort, func() { conn.Close() })
	}
	return conn, err
}

// transport returns the dialer of all hosts.
func (a *Access) transport() *transport.Dialer {
	a.prepare.Do(func() {
		a.dialer.Password, a.dialer.BecomePassword, a.dialer.Ask, a.dialer.Say = a.Password, a.BecomePassword, a.Ask, a.Say
		a.dialer.Waiting = func(host, why string) {
			if a.Waiting != nil {
				a.Waiting(host, why)
			}
		}
	})
	return &a.dialer
}

// questionTimeout is how long a host may take to answer, including the push of vsnode
// over a slow connection.
const questionTimeout = 5 * time.Minute

func (a *Access) questions(forks int) fanout.Limits {
	return fanout.Limits{Forks: forks, Timeout: cmp.Or(a.Timeout, questionTimeout)}
}

// Node is the vsnode of a host, with the connection to it.
type Node struct {
	*remote.Node
	conn *transport.Conn
}

// Close ends vsnode and the connection.
func (n *Node) Close() error {
	err := n.Node.Close()
	if closing := n.conn.Close(); err == nil {
		err = closing
	}
	return err
}

// Open connects to a host and starts vsnode there.
func (a *Access) Open(ctx context.Context, h *inventory.Host) (*Node, error) {
	s, err := a.settings(ctx, h)
	if err != nil {
		return nil, err
	}
	return a.open(ctx, s)
}

func (a *Access) open(ctx context.Context, s transport.Settings) (*Node, error) {
	conn, err := a.dial(ctx, s)
	if err != nil {
		return nil, err
	}
	node, err := remote.New(conn).Serve(ctx)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Node{node, conn}, nil
}

// reopen is like Open, but always makes a new connection, even if a running ssh shares
// one: it shows that the host can still be reached.
func (a *Access) reopen(ctx context.Context, h *inventory.Host) (*Node, error) {
	s, err := a.settings(ctx, h)
	if err != nil {
		return nil, err
	}
	s.ControlPath = ""
	return a.open(ctx, s)
}

// Rollout returns a Fleet that makes and carries out plans. Events go to watch and to
// a.Watch.
func (a *Access) Rollout(forks int, watch func(report.Event)) *rollout.Fleet {
	return &rollout.Fleet{
		Forks:    forks,
		Timeout:  a.questions(forks).Timeout,
		Watch:    report.Watchers(watch, a.Watch),
		Owner:    Owner(),
		Versions: a.Versions,
		Registry: a.Registry,
		LockWait: a.LockWait,
		Open:     a.Keys.Open,

		ConfirmWithin: a.ConfirmWithin,
		Connect:       connector(a.Open),
		Reconnect:     connector(a.reopen),
	}
}

func connector(open func(context.Context, *inventory.Host) (*Node, error)) func(context.Context, *inventory.Host) (rollout.Node, error) {
	return func(ctx context.Context, h *inventory.Host) (rollout.Node, error) {
		node, err := open(ctx, h)
		if err != nil {
			return nil, err // not a nil *Node, which would be a Node
		}
		return node, nil
	}
}

// Owner returns the user and the machine that run vsfleet.
func Owner() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown"
	}
	return name + "@" + machine
}

// Answers holds the answers of hosts, or why there are none.
type Answers[V any] = []fanout.Result[*inventory.Host, V]

// Watch is called when hosts begin and end.
type Watch[V any] = fanout.Watch[*inventory.Host, V]

// Ask asks the vsnode of each host the same question.
func Ask[V any](ctx context.Context, a *Access, hosts []*inventory.Host, forks int, ask func(context.Context, *Node) (V, error), watch Watch[V]) Answers[V] {
	return fanout.Each(ctx, hosts, a.questions(forks), func(ctx context.Context, h *inventory.Host) (V, error) {
		node, err := a.Open(ctx, h)
		if err != nil {
			var none V
			return none, err
		}
		defer node.Close()
		return ask(ctx, node)
	}, watch)
}

// Check asks hosts which features they have.
func (a *Access) Check(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.Check]) Answers[api.Check] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Check, error) { return n.Check(ctx) }, watch)
}

// Stat asks for the resources that hosts and their guests use.
func (a *Access) Stat(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.Stat]) Answers[api.Stat] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Stat, error) { return n.Stat(ctx) }, watch)
}

// State asks for the guests and images of hosts.
func (a *Access) State(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.State]) Answers[api.State] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.State, error) { return n.State(ctx) }, watch)
}

// Usage asks hosts what their guests use of their limits.
func (a *Access) Usage(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.Usage]) Answers[api.Usage] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Usage, error) { return n.Usage(ctx) }, watch)
}

// CheckStore has hosts read all that their images consist of.
func (a *Access) CheckStore(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.StoreCheck]) Answers[api.StoreCheck] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.StoreCheck, error) { return n.CheckStore(ctx) }, watch)
}

// Generations asks hosts which generations of guests they keep.
func (a *Access) Generations(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.Generations]) Answers[api.Generations] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Generations, error) { return n.Generations(ctx) }, watch)
}

// Stale is what guests of a host use that newer versions have replaced.
type Stale struct {
	api.StaleAnswer
	Wanted map[string]string // the ID of the image that each guest should have
}

// Stale asks hosts what their guests use that newer versions have replaced.
func (a *Access) Stale(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host, forks int, watch Watch[Stale]) Answers[Stale] {
	return fanout.Each(ctx, hosts, a.questions(forks), func(ctx context.Context, h *inventory.Host) (stale Stale, err error) {
		node, err := a.Open(ctx, h)
		if err != nil {
			return stale, err
		}
		defer node.Close()
		state, err := node.State(ctx)
		if err != nil {
			return stale, err
		}
		stale.Wanted = plan.Wanted(h, state, plan.Rules{Image: inv.Image, Versions: a.Versions})
		stale.StaleAnswer, err = node.Stale(ctx, api.StaleRequest{Images: stale.Wanted})
		return stale, err
	}, watch)
}

// hashifyTimeout is for hosts that read all that their guests have of their own.
const hashifyTimeout = 6 * time.Hour

// Hashify has guests of hosts, by host, share files with others. Hosts without guests in
// the list do nothing.
func (a *Access) Hashify(ctx context.Context, hosts []*inventory.Host, wanted func(host, guest string) bool, dry bool, forks int, watch Watch[api.Hashified]) Answers[api.Hashified] {
	limits := fanout.Limits{Forks: forks, Timeout: cmp.Or(a.Timeout, hashifyTimeout)}
	return fanout.Each(ctx, hosts, limits, func(ctx context.Context, h *inventory.Host) (done api.Hashified, err error) {
		node, err := a.Open(ctx, h)
		if err != nil {
			return done, err
		}
		defer node.Close()
		state, err := node.State(ctx)
		if err != nil {
			return done, err
		}
		req := api.Hashify{Dry: dry}
		for _, g := range state.Guests {
			if wanted(h.Name, g.Name) {
				req.Guests = append(req.Guests, g.Name)
			}
		}
		if len(req.Guests) == 0 {
			return done, nil
		}
		return node.Hashify(ctx, req)
	}, watch)
}

// Volumes asks for the volumes of hosts.
func (a *Access) Volumes(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.Volumes]) Answers[api.Volumes] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Volumes, error) { return n.Volumes(ctx) }, watch)
}

// Locks asks who may change hosts.
func (a *Access) Locks(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[api.Locks]) Answers[api.Locks] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Locks, error) { return n.Locks(ctx) }, watch)
}

// Unlock ends the locks of hosts and the runs that are changing them. A run has the
// given time to finish or undo its steps.
func (a *Access) Unlock(ctx context.Context, hosts []*inventory.Host, wait time.Duration, forks int, watch Watch[api.Unlocked]) Answers[api.Unlocked] {
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Unlocked, error) {
		return n.Unlock(ctx, api.Unlock{Wait: wait})
	}, watch)
}

// Release ends locks and the runs that hold them, as a run of its own.
func (a *Access) Release(ctx context.Context, hosts []*inventory.Host, wait time.Duration, forks int) report.Run {
	f := a.Rollout(forks, nil)
	begun := time.Now()
	run := report.Run{ID: report.NewID(begun), Who: f.Owner, Verb: "lock release", When: begun}
	tell := func(e report.Event) {
		if e.Run, e.Time = run.ID, time.Now(); f.Watch != nil {
			f.Watch(e)
		}
	}
	head := run
	for _, h := range hosts {
		head.Hosts = append(head.Hosts, report.Host{Name: h.Name})
	}
	tell(report.Began(head))
	for _, r := range a.Unlock(ctx, hosts, wait, forks, Watch[api.Unlocked]{}) {
		host := report.HostOf(r.Host.Name, r.Host.Address, r.Outcome, r.Err)
		host.Text = report.Unlocked(r.Value)
		run.Hosts = append(run.Hosts, host)
		tell(report.Event{Kind: report.Done, Host: host.Name, Result: &host.Result, Report: &host})
	}
	run.Took = time.Since(begun)
	tell(report.Ended(run))
	return run
}

// Ping connects to hosts and measures how long it takes.
func (a *Access) Ping(ctx context.Context, hosts []*inventory.Host, forks int, watch Watch[report.Ping]) Answers[report.Ping] {
	return fanout.Each(ctx, hosts, a.questions(forks), func(ctx context.Context, h *inventory.Host) (p report.Ping, err error) {
		begun := time.Now()
		conn, err := a.Dial(ctx, h)
		if err != nil {
			return p, err
		}
		defer conn.Close()
		p.Connect = time.Since(begun)
		begun = time.Now()
		node, err := remote.New(conn).Serve(ctx)
		if err != nil {
			return p, err
		}
		defer node.Close()
		p.Start = time.Since(begun)
		if p.RoundTrip, err = conn.RTT(ctx); err != nil {
			return p, err
		}
		state, err := node.State(ctx)
		p.Host = state.Host
		return p, err
	}, watch)
}

// Command is what to run on a host, or, with a guest, inside it.
type Command struct {
	Host   *inventory.Host
	Guest  string
	Argv   []string
	Inside Inside // only with a guest
}

// Inside is how a command runs inside a guest.
type Inside struct {
	As, Dir              string   // user and directory; empty: root, /
	Env                  []string // NAME=VALUE
	Terminal, NoTerminal bool     // give it one in any case, or none; neither: if standard input is one
}

func (c Command) program() remote.Program {
	p := remote.Program{Argv: c.Argv, As: c.Inside.As, Dir: c.Inside.Dir, Env: c.Inside.Env}
	switch {
	case c.Inside.Terminal:
		p.Tty = remote.AlwaysTerminal
	case c.Inside.NoTerminal:
		p.Tty = remote.NoTerminal
	}
	return p
}

// Run runs a command to its end and gives its exit status. Several words are
// one command with its arguments; one word on a host is a line for its shell.
func (a *Access) Run(ctx context.Context, c Command, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	conn, err := a.Dial(ctx, c.Host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if c.Guest == "" {
		return conn.Run(ctx, c.Argv, stdin, stdout, stderr)
	}
	return remote.New(conn).Exec(ctx, c.Guest, c.program(), remote.Streams{In: stdin, Out: stdout, Errs: stderr})
}

// Enter gives the controller's terminal to a shell in a guest, or to a command
// if there is one.
func (a *Access) Enter(ctx context.Context, c Command) (exit int, err error) {
	verb := "guest enter"
	if len(c.Argv) > 0 {
		verb = "guest exec"
	}
	record := a.Record(verb, []string{c.Place()})
	defer record.End()
	defer func() { record.Done(report.HostOf(c.Place(), c.Host.Address, outcome.Of(err), err)) }()
	conn, err := a.Dial(ctx, c.Host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return remote.New(conn).Terminal(ctx, c.Guest, c.program())
}

// Install puts vsnode where administrators of the hosts find it.
func (a *Access) Install(ctx context.Context, hosts []*inventory.Host, forks int) Answers[api.Installed] {
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.Name
	}
	record := a.Record("install", names)
	defer record.End()
	watch := recorded(record, Watch[api.Installed]{}, func(r fanout.Result[*inventory.Host, api.Installed]) report.Host {
		return report.HostOf(r.Host.Name, r.Host.Address, r.Outcome, r.Err)
	})
	return Ask(ctx, a, hosts, forks, func(ctx context.Context, n *Node) (api.Installed, error) { return n.Install(ctx) }, watch)
}

// Log shows what a guest logged last: a number of lines, and with follow what
// comes from now on.
func (a *Access) Log(ctx context.Context, h *inventory.Host, req api.Log, stdout, stderr io.Writer) (exit int, err error) {
	conn, err := a.Dial(ctx, h)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return remote.New(conn).Log(ctx, req, stdout, stderr)
}
