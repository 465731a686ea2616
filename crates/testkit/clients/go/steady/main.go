// Command steady is client-go at steady work, for the fault runs: a get and a list in turns, so many a second, and an informer; a
// line for each call and each change. With what rest.InClusterConfig gives; only the limit of five requests a second is off,
// which would hold the calls back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

var (
	lock    sync.Mutex
	pending = map[int]int64{}
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	callsPerSecond, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	bytes, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	namespace := string(bytes)
	if err := follow(client, namespace); err != nil {
		return err
	}
	go func() {
		for number := 0; ; number++ {
			go call(client, namespace, number)
			time.Sleep(time.Second / time.Duration(callsPerSecond))
		}
	}()
	_, _ = io.ReadAll(os.Stdin)
	lock.Lock()
	defer lock.Unlock()
	for _, begun := range pending {
		fmt.Println("open", begun)
	}
	return nil
}

func call(client kubernetes.Interface, namespace string, number int) {
	begun := now()
	lock.Lock()
	pending[number] = begun
	lock.Unlock()
	maps, ctx := client.CoreV1().ConfigMaps(namespace), context.Background()
	var err error
	if number%2 == 0 {
		_, err = maps.Get(ctx, "still-01", metav1.GetOptions{})
	} else {
		_, err = maps.List(ctx, metav1.ListOptions{})
	}
	lock.Lock()
	delete(pending, number)
	lock.Unlock()
	if err == nil {
		tell("call", begun, now(), "ok")
	} else {
		tell("call", begun, now(), "failed", err)
	}
}

func follow(client kubernetes.Interface, namespace string) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	beat := func(object any) {
		if configMap, ok := object.(*corev1.ConfigMap); ok && configMap.Name == "beat" {
			tell("beat", configMap.Data["n"], now())
		}
	}
	handlers := cache.ResourceEventHandlerFuncs{AddFunc: beat, UpdateFunc: func(_, object any) { beat(object) }}
	if _, err := informer.AddEventHandler(handlers); err != nil {
		return err
	}
	// Those that the library's own handler takes for errors.
	err := informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
		expired := apierrors.IsResourceExpired(err) || apierrors.IsGone(err)
		if !expired && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			tell("watch failed", now(), err)
		}
	})
	if err != nil {
		return err
	}
	factory.Start(context.Background().Done())
	return nil
}

func tell(words ...any) {
	lock.Lock()
	defer lock.Unlock()
	fmt.Println(strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintln(words...), "\n", " "), " "))
}

func now() int64 {
	return time.Now().UnixMicro()
}
