// Pod does with containerd what a kubelet does for one pod: it makes the sandbox, starts a container in it, runs a
// command there, and takes all away.
//
//	pod SOCKET RUNTIME IMAGE COMMAND…
//
// While the container runs, and before the rest, it prints the pod's address and waits for a line on standard input.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// patience bounds the whole.
const patience = 2 * time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) < 4 {
		return errors.New("usage: pod SOCKET RUNTIME IMAGE COMMAND…")
	}
	socket, handler, image, command := args[0], args[1], args[2], args[3:]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("cannot reach containerd: %w", err)
	}
	defer connection.Close()
	client := cri.NewRuntimeServiceClient(connection)
	logs, err := os.MkdirTemp("", "pod")
	if err != nil {
		return err
	}
	defer os.RemoveAll(logs)

	sandbox := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: handler, Uid: handler, Namespace: "default"}, Hostname: handler, LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
		}},
	}
	made, err := client.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: handler})
	if err != nil {
		return fmt.Errorf("cannot make the sandbox: %w", err)
	}
	id := made.GetPodSandboxId()
	defer func() {
		if _, e := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot stop the sandbox: %w", e))
		}
		if _, e := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot remove the sandbox: %w", e))
		}
	}()
	status, err := client.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		return fmt.Errorf("cannot ask for the sandbox: %w", err)
	}
	container, err := client.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: id, SandboxConfig: sandbox, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: image}, LogPath: "main.log",
		Linux: &cri.LinuxContainerConfig{
			// As a pod under the restricted policy, with limits.
			Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 100, CpuPeriod: 100_000, CpuQuota: 50_000},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NoNewPrivs: true, ReadonlyRootfs: true, Capabilities: &cri.Capability{DropCapabilities: []string{"ALL"}},
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}})
	if err != nil {
		return fmt.Errorf("cannot make the container: %w", err)
	}
	if _, err := client.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container.GetContainerId()}); err != nil {
		return fmt.Errorf("cannot start the container: %w", err)
	}
	fmt.Println(status.GetStatus().GetNetwork().GetIp())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("nobody said to go on: %w", err)
	}
	said, err := client.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: container.GetContainerId(), Cmd: command, Timeout: 30})
	if err != nil {
		return fmt.Errorf("cannot run a command in the container: %w", err)
	}
	fmt.Printf("%s%s", said.GetStdout(), said.GetStderr())
	log, err := os.ReadFile(filepath.Join(logs, "main.log"))
	if err != nil {
		return fmt.Errorf("cannot read the container's log: %w", err)
	}
	fmt.Printf("%s", log)
	if _, err := client.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container.GetContainerId(), Timeout: 5}); err != nil {
		return fmt.Errorf("cannot stop the container: %w", err)
	}
	return nil
}
