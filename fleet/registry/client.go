package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/vsfleet/vsfleet/internal/printable"
)

// Client asks registries. Its methods may be called by several goroutines.
type Client struct {
	// CA is a file with certificates in PEM that are trusted beside the machine's own;
	// empty: none.
	CA string
	// Stall is how long a registry may send nothing; 0: two minutes.
	Stall time.Duration
	// Pause is the time before the second attempt to read a blob, and twice that before the
	// third; 0: a second.
	Pause time.Duration
}

func (c *Client) stall() time.Duration {
	if c.Stall > 0 {
		return c.Stall
	}
	return 2 * time.Minute
}

// roundTripper returns how registries are reached.
func (c *Client) roundTripper() (http.RoundTripper, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = c.stall()
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: it holds no certificate in PEM", c.CA)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return guarded{t}, nil
}

// options returns how registries are asked. Credentials are those of docker and podman.
func (c *Client) options(ctx context.Context) ([]remote.Option, error) {
	t, err := c.roundTripper()
	if err != nil {
		return nil, err
	}
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(t),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("vsfleet"),
	}, nil
}

// blob reads a blob from a byte on. (The library has only whole blobs.)
func (c *Client) blob(ctx context.Context, ref name.Reference, blob v1.Descriptor, from int64) (io.ReadCloser, error) {
	t, err := c.roundTripper()
	if err != nil {
		return nil, err
	}
	repo := ref.Context()
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, err
	}
	if t, err = transport.NewWithContext(ctx, repo.Registry, auth, t, []string{repo.Scope(transport.PullScope)}); err != nil {
		return nil, err
	}
	where := url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: fmt.Sprintf("/v2/%s/blobs/%s", repo.RepositoryStr(), blob.Digest)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "vsfleet")
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	answer, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return nil, err
	}
	if err = transport.CheckError(answer, http.StatusOK, http.StatusPartialContent); err == nil {
		switch got := answer.Header.Get("Content-Range"); {
		case answer.StatusCode == http.StatusOK: // the registry knows no ranges
			_, err = io.CopyN(io.Discard, answer.Body, from)
		case !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", from)):
			err = fmt.Errorf("the registry was asked for bytes from %d on, and sends %q", from, got)
		}
	}
	if err != nil {
		answer.Body.Close()
		return nil, err
	}
	return answer.Body, nil
}

// guarded refuses requests without TLS to other machines. The library would try one where
// TLS fails in a private network.
type guarded struct{ http.RoundTripper }

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("%s does not speak TLS: plain HTTP is for registries of this machine alone (localhost)", r.URL.Host)
	}
	return g.RoundTripper.RoundTrip(r)
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// Check returns an error unless it is given the reference of an image.
func Check(ref string) error {
	_, err := name.ParseReference(ref)
	if err != nil {
		return fmt.Errorf("image %q: want HOST/NAME:TAG or HOST/NAME@sha256:…, as docker.io/library/debian:bookworm", ref)
	}
	return nil
}

// canonical returns how an image is written: docker.io is what people call index.docker.io.
func canonical(ref name.Reference) string {
	return strings.Replace(ref.Name(), name.DefaultRegistry+"/", "docker.io/", 1)
}

// explain returns an error of the library with its cure, fit for a terminal.
func explain(ref name.Reference, err error) error {
	var answer *transport.Error
	var unknown x509.UnknownAuthorityError
	host := ref.Context().RegistryStr()
	cure := ""
	switch {
	case errors.As(err, &unknown):
		cure = "its certificate is signed by nobody that this machine knows: name the authority's certificate by --registry-ca FILE"
	case !errors.As(err, &answer):
	case answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden:
		cure = "the registry denies it, or has no such image: log in with docker login " + host + " or podman login " + host
	case answer.StatusCode == http.StatusNotFound:
		cure = "the registry has no such image or tag"
	case answer.StatusCode == http.StatusTooManyRequests:
		cure = "the registry limits requests: wait, or log in with docker login " + host
	}
	text := printable.Line(err.Error())
	if cure != "" {
		text = cure + " (" + text + ")"
	}
	return &failure{fmt.Sprintf("%s: %s", canonical(ref), text), err}
}

// A failure is an error whose text is not that of its cause.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }
