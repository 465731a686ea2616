// client-go's exec, attach and port-forward into the pod `web`, over WebSockets and over SPDY: one line a step, `ok NAME` or
// `FAIL NAME: why`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

const limit = 20 * time.Second

var (
	config *rest.Config
	client *kubernetes.Clientset
)

// executors are the two framings.
var executors = map[string]func(request *rest.Request) (remotecommand.Executor, error){
	"WebSocket": func(request *rest.Request) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(config, "GET", request.URL().String())
	},
	"SPDY": func(request *rest.Request) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(config, "POST", request.URL())
	},
}

func request(subresource string) *rest.Request {
	return client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("web").SubResource(subresource)
}

type queue chan remotecommand.TerminalSize

func (q queue) Next() *remotecommand.TerminalSize {
	if size, ok := <-q; ok {
		return &size
	}
	return nil
}

func run(framing string, tty bool, stdin string, command ...string) (string, string, error) {
	options := &corev1.PodExecOptions{Container: "main", Command: command, Stdin: stdin != "", Stdout: true, Stderr: !tty, TTY: tty}
	executor, err := executors[framing](request("exec").VersionedParams(options, scheme.ParameterCodec))
	if err != nil {
		return "", "", err
	}
	var stdout, stderr bytes.Buffer
	streams := remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr, Tty: tty}
	if stdin != "" {
		streams.Stdin = strings.NewReader(stdin)
	}
	if tty {
		streams.Stderr = nil
		sizes := make(queue, 1)
		sizes <- remotecommand.TerminalSize{Width: 70, Height: 30}
		streams.TerminalSizeQueue = sizes
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err = executor.StreamWithContext(ctx, streams)
	return stdout.String(), stderr.String(), err
}

func same(got, want any) error {
	if got != want {
		return fmt.Errorf("%q is not %q", got, want)
	}
	return nil
}

func output(framing string) error {
	stdout, stderr, err := run(framing, false, "", "sh", "-c", "echo out; echo err >&2")
	return errors.Join(err, same(stdout, "out\n"), same(stderr, "err\n"))
}

func exitCode(framing string) error {
	_, _, err := run(framing, false, "", "sh", "-c", "exit 7")
	var exit exec.CodeExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("%v is no exit code", err)
	}
	return same(exit.Code, 7)
}

func input(framing string) error {
	much := strings.Repeat("0123456789", 300_000)
	stdout, _, err := run(framing, false, much, "cat")
	return errors.Join(err, same(len(stdout), len(much)))
}

func terminal(framing string) error {
	stdout, _, err := run(framing, true, "", "sh", "-c", `until [ "$(stty size)" = "30 70" ]; do sleep 0.01; done; tty`)
	return errors.Join(err, same(stdout, "/dev/pts/0\r\n"))
}

func missing(framing string) error {
	_, _, err := run(framing, false, "", "nope")
	if err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		return fmt.Errorf("%v does not say that there is no such file", err)
	}
	return nil
}

func attach(framing string) error {
	options := &corev1.PodAttachOptions{Container: "echo", Stdin: true, Stdout: true}
	executor, err := executors[framing](request("attach").VersionedParams(options, scheme.ParameterCodec))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	read, write := io.Pipe()
	heard := make(chan error, 1)
	go func() {
		line := make([]byte, len("heard hello\n"))
		_, err := io.ReadFull(read, line)
		heard <- errors.Join(err, same(string(line), "heard hello\n"))
		cancel()
	}()
	typing, _ := io.Pipe()
	stdin := io.MultiReader(strings.NewReader("hello\n"), typing)
	_ = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: write})
	return <-heard
}

func ports(framing string) error {
	url := request("portforward").URL()
	dialer, err := portforward.NewSPDYOverWebsocketDialer(url, config)
	if framing == "SPDY" {
		transport, upgrader, wrong := spdy.RoundTripperFor(config)
		if wrong != nil {
			return wrong
		}
		dialer, err = spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", url), nil
	}
	if err != nil {
		return err
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, []string{"0:7000"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	case <-time.After(limit):
		return errors.New("not ready")
	}
	forwarded, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", forwarded[0].Local))
	if err != nil {
		return err
	}
	_, _ = connection.Write([]byte("stressed\n"))
	_ = connection.SetDeadline(time.Now().Add(limit))
	heard, err := io.ReadAll(connection)
	close(stop)
	return errors.Join(err, same(string(heard), "desserts"), <-ended)
}

func main() {
	var err error
	if config, err = clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")); err == nil {
		client, err = kubernetes.NewForConfig(config)
	}
	if err != nil {
		fmt.Println("FAIL Configure:", err)
		return
	}
	steps := []struct {
		name string
		run  func(framing string) error
	}{
		{"Output", output}, {"ExitCode", exitCode}, {"Input", input}, {"Terminal", terminal}, {"Missing", missing},
		{"Attach", attach}, {"Ports", ports},
	}
	for _, step := range steps {
		for _, framing := range []string{"WebSocket", "SPDY"} {
			if err := step.run(framing); err != nil {
				fmt.Printf("FAIL %s%s: %s\n", step.name, framing, strings.Join(strings.Fields(err.Error()), " "))
			} else {
				fmt.Printf("ok %s%s\n", step.name, framing)
			}
		}
	}
}
