package netctx

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/klauspost/compress/zstd"
)

// The programs of the network contexts are carried compressed: the line
// information that makes the verifier's log readable is most of them. The plain
// _NetctxBytes is not linked into vsnode, since nothing but a test asks for it.
//
//go:generate go run ../../fleet/push/pack -o netctx.o.zst netctx_bpfel.o
//go:generate rm netctx.o.sha256
//go:embed netctx.o.zst
var netctxPacked []byte

// unpackNetctx returns the object that netctxPacked holds.
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

// netctxSpec is loadNetctx from the compressed object.
func netctxSpec() (*ebpf.CollectionSpec, error) {
	object, err := unpackNetctx()
	if err != nil {
		return nil, err
	}
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
}
