package artifacts

import (
	"fmt"
	"slices"
	"strings"
)

// component is a project whose programs are built from its module.
type component struct {
	module  string // as cluster/go.mod requires it; its version is the component's
	licence string // SPDX
	// stamps are the variables that the project's own builds set by the linker, with %s for the version without its v.
	stamps []string
}

const (
	kubernetes = "k8s.io/kubernetes"
	etcdServer = "go.etcd.io/etcd/server/v3"
	etcdClient = "go.etcd.io/etcd/etcdctl/v3"
	containerd = "github.com/containerd/containerd/v2"
	cniPlugins = "github.com/containernetworking/plugins"
	coreDNS    = "github.com/coredns/coredns"
)

func components() []component {
	return []component{
		{module: kubernetes, licence: "Apache-2.0", stamps: []string{
			"k8s.io/component-base/version.gitVersion=v%s",
			"k8s.io/component-base/version.gitCommit=",
			"k8s.io/component-base/version.gitTreeState=",
			"k8s.io/client-go/pkg/version.gitVersion=v%s",
			"k8s.io/client-go/pkg/version.gitCommit=",
			"k8s.io/client-go/pkg/version.gitTreeState=",
		}},
		{module: etcdServer, licence: "Apache-2.0", stamps: []string{"go.etcd.io/etcd/api/v3/version.GitSHA=unknown"}},
		{module: etcdClient, licence: "Apache-2.0"},
		{module: containerd, licence: "Apache-2.0", stamps: []string{containerd + "/version.Version=v%s"}},
		{module: cniPlugins, licence: "Apache-2.0", stamps: []string{cniPlugins + "/pkg/utils/buildversion.BuildVersion=v%s"}},
		{module: coreDNS, licence: "Apache-2.0"},
	}
}

// tags are those with which the projects build their releases, where they have some, and those that leave out what needs
// cgo or no machine of ours has.
const tags = "grpcnotrace,notest,selinux,urfave_cli_no_docs,no_btrfs,no_devmapper,no_zfs"

// program is one executable of a component.
type program struct {
	name   string
	module string
	pkg    string // import path, or a folder of the module cluster as ./NAME
	folder string // in a build and in bundles
	// says are the arguments at which it prints its version, and how that looks, with %s for the version without its v.
	says []string
	as   string
}

// output is the name that go build gives the program: the last element of its path that is no major version.
func (p program) output() string {
	parts := strings.Split(p.pkg, "/")
	last := parts[len(parts)-1]
	if len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		last = parts[len(parts)-2]
	}
	return last
}

func programs() []program {
	list := []program{
		{name: "etcd", module: etcdServer, pkg: etcdServer, says: []string{"--version"}, as: "etcd Version: %s"},
		{name: "etcdctl", module: etcdClient, pkg: etcdClient, says: []string{"version"}, as: "etcdctl version: %s"},
		{name: "kubectl", module: kubernetes, pkg: kubernetes + "/cmd/kubectl", says: []string{"version", "--client"}, as: "Client Version: v%s"},
		{name: "containerd", module: containerd, pkg: containerd + "/cmd/containerd", says: []string{"--version"}, as: "containerd/v2 v%s"},
		{name: "ctr", module: containerd, pkg: containerd + "/cmd/ctr", says: []string{"--version"}, as: "containerd/v2 v%s"},
		{name: "containerd-shim-runc-v2", module: containerd, pkg: containerd + "/cmd/containerd-shim-runc-v2", says: []string{"-v"}, as: "Version:  v%s"},
		{name: "coredns", module: coreDNS, pkg: "./coredns", says: []string{"-version"}, as: "CoreDNS-%s"},
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"} {
		list = append(list, program{name: name, module: kubernetes, pkg: kubernetes + "/cmd/" + name, says: []string{"--version"}, as: "Kubernetes v%s"})
	}
	for i := range list {
		list[i].folder = "bin"
	}
	for _, pkg := range []string{"ipam/host-local", "main/bridge", "main/loopback", "main/ptp", "meta/portmap"} {
		p := program{module: cniPlugins, pkg: cniPlugins + "/plugins/" + pkg, folder: "cni"}
		p.name = p.output()
		p.as = "CNI " + p.name + " plugin v%s"
		list = append(list, p)
	}
	return list
}

// ownVersion is that of the programs of ours. A new one makes nodes take their image for another.
const ownVersion = "1"

// ownLicence is that of this module.
const ownLicence = "Apache-2.0"

// own names the programs of ours, each a folder beside this file, of the standard library alone.
func own() []string { return []string{"pause", "echo"} }

// image is a container image of one program.
type image struct {
	name string // of the image and of the program
	args []string
	user string // numeric; empty for root, whose capabilities a pod then drops
}

func images() []image {
	return []image{
		{name: "pause", user: "65535:65535"},
		{name: "echo", args: []string{"serve"}, user: "65532:65532"},
		{name: "coredns", args: []string{"-conf", "/etc/coredns/Corefile"}},
	}
}

// bundle is a squashfs of programs and images.
type bundle struct {
	name     string
	module   string // whose version the bundle bears; ours where empty
	programs []string
	images   []string
}

func (b bundle) holds() []string {
	return slices.Sorted(slices.Values(slices.Concat(b.programs, b.images)))
}

func bundles() []bundle {
	return []bundle{
		{name: "etcd", module: etcdServer, programs: []string{"etcd", "etcdctl"}},
		{name: "kubernetes-control", module: kubernetes, programs: []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}},
		{name: "kubernetes-node", module: kubernetes, programs: []string{"kubelet", "kube-proxy", "kubectl"}},
		{name: "containerd", module: containerd, programs: []string{
			"containerd", "containerd-shim-runc-v2", "ctr", "bridge", "host-local", "loopback", "portmap", "ptp",
		}},
		{name: "images", images: []string{"pause", "echo", "coredns"}},
	}
}

// linkerFlags strips programs and stamps versions, given by module.
func linkerFlags(versions map[string]string) (string, error) {
	flags := []string{"-s", "-w"}
	for _, c := range components() {
		version, ok := versions[c.module]
		if !ok {
			return "", fmt.Errorf("cluster/go.mod does not require %s", c.module)
		}
		for _, stamp := range c.stamps {
			if strings.Contains(stamp, "%s") {
				stamp = fmt.Sprintf(stamp, version)
			}
			flags = append(flags, "-X", stamp)
		}
		if c.module == kubernetes {
			parts := strings.SplitN(version, ".", 3)
			if len(parts) < 3 {
				return "", fmt.Errorf("cannot read Kubernetes's version %q", version)
			}
			flags = append(flags, "-X", "k8s.io/component-base/version.gitMajor="+parts[0], "-X", "k8s.io/component-base/version.gitMinor="+parts[1])
		}
	}
	return strings.Join(flags, " "), nil
}
