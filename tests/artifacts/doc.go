// Package artifacts builds what a Kubernetes cluster runs and what no machine here can download: Kubernetes, etcd,
// CoreDNS, containerd and the CNI plugins, from the Go modules that their projects publish, with the versions stamped
// that their releases bear; two small programs of ours, pause and echo; container images of some of them, made without
// a registry; and squashfs bundles of it all, which nodes verify and mount read-only. runc and crun come with the node
// image.
//
// `make artifacts` runs it. What the module cluster pins (cluster/go.mod, one for all, so that what Kubernetes, etcd and
// containerd share is compiled once), Go's version and the builder's own source decide what comes out: equal inputs give
// equal digests, and are built once. One build runs at a time. An interrupted one goes on where it was, for compiled
// packages lie in Go's own cache, and finished programs in this one's.
//
// To move to another version, change its requirement in cluster/go.mod, and for Kubernetes the replacements of all its
// staging modules, run go mod tidy there, and make test-artifacts. Kubernetes decides which etcd, gRPC and golang.org/x
// modules fit: components whose own requirements exceed its are a reason to stay on the release before.
//
// # Output
//
//	OUT/current -> 0123456789abcdef    the newest build, by the digest of its inputs
//	OUT/current/manifest.json          what follows, as a Manifest
//	OUT/current/bin/kubelet            programs, static, for Linux
//	OUT/current/images/pause.tar       container images: OCI layouts for `ctr -n k8s.io images import`
//	OUT/current/bundles/etcd.squashfs  bundles
//
// The manifest:
//
//	{
//	  "format": 1,
//	  "inputs": "64 hexadecimal digits",
//	  "go": "go1.26.8",
//	  "artifacts": [
//	    { "name": "kubelet", "kind": "program", "version": "1.36.3", "arch": "amd64", "file": "bin/kubelet",
//	      "sha256": "64 hexadecimal digits", "size": 61000000, "licence": "Apache-2.0", "source": "k8s.io/kubernetes@v1.36.3" },
//	    { "name": "pause", "kind": "image", …, "file": "images/pause.tar", "image": "joist.internal/pause:1" },
//	    { "name": "kubernetes-node", "kind": "bundle", …, "file": "bundles/kubernetes-node.squashfs", "holds": ["kubelet", …] }
//	  ]
//	}
//
// A name is unique within its kind. Versions have no leading v, sizes are bytes, and artifacts are sorted by kind, then name.
//
// Inside a bundle:
//
//	bin/NAME        programs
//	cni/NAME        CNI plugins, the folder for containerd's bin_dir
//	images/NAME.tar images, to be imported where they are
//	licences/NAME   the licence of each program from elsewhere; not those of the modules that it links
//
// Bundles: etcd (etcd, etcdctl), kubernetes-control (kube-apiserver, kube-controller-manager, kube-scheduler, kubectl),
// kubernetes-node (kubelet, kube-proxy, kubectl), containerd (containerd, containerd-shim-runc-v2, ctr, the CNI plugins),
// images (pause, coredns, echo).
package artifacts
