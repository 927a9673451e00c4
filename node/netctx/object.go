package netctx

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/klauspost/compress/zstd"
)

// The programs of the network contexts are embedded compressed, and without the line
// information that makes the verifier's log readable: most of their size. On a kernel that
// refuses them, bpftool prog loadall netctx_bpfel.o prints that log with the lines of C. The
// plain _NetctxBytes is not linked into vsnode, since only a test uses it.
//
//go:generate ./pack.sh
//go:embed netctx.o.zst
var netctxPacked []byte

// unpackNetctx returns the object compressed in netctxPacked.
func unpackNetctx() ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	object, err := z.DecodeAll(netctxPacked, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack network programs: %w", err)
	}
	return object, nil
}

// netctxSpec is like loadNetctx, but reads the compressed object.
func netctxSpec() (*ebpf.CollectionSpec, error) {
	object, err := unpackNetctx()
	if err != nil {
		return nil, err
	}
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
}
