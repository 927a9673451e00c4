package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/vsfleet/vsfleet/node/guest"
)

// neighbourRow asks a guest for a page while another guest does its worst. Where cgroup
// v2 has no cpu controller, nothing but the scheduler divides the processors.
func neighbourRow(ctx context.Context, b *bench) (err error) {
	neighbour := b.spec("neighbour")
	listen := netip.AddrPortFrom(netip.MustParsePrefix(address).Addr(), neighbour.Network.Ports[0].First)
	neighbour.Init.Command = []string{"/bin/busybox", "httpd", "-f", "-p", fmt.Sprint(listen.Port()), "-h", "/root"}
	if err := b.host.Guests.Create(ctx, neighbour); err != nil {
		return err
	}
	if err := b.host.Guests.Start(ctx, neighbour.Name, guest.Options{}); err != nil {
		return err
	}
	defer func() {
		_, serr := b.host.Guests.Stop(ctx, neighbour.Name)
		err = errors.Join(err, serr)
	}()
	ask := func(ctx context.Context) (time.Duration, error) {
		return timed(func() error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", listen.String())
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				return err
			}
			got, err := io.ReadAll(c)
			if err == nil && len(got) == 0 {
				err = errors.New("the neighbour did not answer")
			}
			return err
		})
	}
	if err := awaitPort(listen.String()); err != nil {
		return err
	}
	subjects, pairs := []subject{{"the others idle", ask}}, []pair{}
	for i, bomb := range []struct{ name, script string }{
		{"one forks without end", "while :; do (while :; do (while :; do sleep 1000 & done) 2>/dev/null; done) 2>/dev/null; wait; done"},
		{"one writes output without end", "exec busybox yes more than anybody wants to read"},
		{"one mounts without end", "i=0; while :; do mkdir /run/$i; mount -o bind /bin /run/$i; i=$((i + 1)); done 2>/dev/null"},
		{"one makes cgroups without end", "i=0; while :; do mkdir /sys/fs/cgroup/$i; i=$((i + 1)); done 2>/dev/null"},
		{"one computes in 100 processes", "i=1; while [ $i -lt 100 ]; do (while :; do :; done) & i=$((i + 1)); done; wait"},
	} {
		g := b.spec(fmt.Sprint("bomb", i), "/bin/busybox", "sh", "-c", bomb.script)
		g.Limits.Processes = 120
		if err := b.host.Guests.Create(ctx, g); err != nil {
			return err
		}
		subjects = append(subjects, subject{bomb.name, func(ctx context.Context) (took time.Duration, err error) {
			if err := b.host.Guests.Start(ctx, g.Name, guest.Options{}); err != nil {
				return 0, err
			}
			defer func() {
				_, serr := b.host.Guests.Stop(ctx, g.Name)
				err = errors.Join(err, serr)
			}()
			select { // until it is at its worst
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
			if took, err = ask(ctx); err != nil {
				return 0, err
			}
			if on, err := b.host.Guests.Running(g.Name); err != nil || !on {
				return 0, errors.Join(err, fmt.Errorf("%s did not last", g.Name))
			}
			return took, nil
		}})
		pairs = append(pairs, pair{i + 1, 0, 2})
	}
	return row(ctx, "A page from a guest, while of the other guests", b.rounds(30), subjects, pairs)
}
