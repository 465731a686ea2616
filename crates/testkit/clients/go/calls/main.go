// Command calls makes the calls that programs make with client-go, outside of any pod: one line a step, `ok NAME` or
// `FAIL NAME: why`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
)

const (
	namespace = "go"
	// How long a step may take.
	limit = 30 * time.Second
)

var maps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	config.QPS = -1
	seen := &traffic{}
	watched := rest.CopyConfig(config)
	watched.Dial = seen.dial
	watched.Wrap(func(next http.RoundTripper) http.RoundTripper { return seen.wrap(next) })
	c := &calls{
		writer:   kubernetes.NewForConfigOrDie(config),
		reader:   kubernetes.NewForConfigOrDie(watched),
		dynamic:  dynamic.NewForConfigOrDie(config),
		metadata: metadata.NewForConfigOrDie(config),
		seen:     seen,
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"MakeNamespace", c.makeNamespace},
		{"Informers", c.informers},
		{"DynamicInformer", c.dynamicInformer},
		{"MetadataInformer", c.metadataInformer},
		{"Watch", c.watch},
		{"Pager", c.pager},
		{"PatchJSON", c.patchJSON},
		{"PatchMerge", c.patchMerge},
		{"PatchStrategic", c.patchStrategic},
		{"Apply", c.apply},
		{"TypedErrors", c.typedErrors},
		{"Discovery", c.discovery},
		{"Scale", c.scale},
		{"Evict", c.evict},
		{"DeleteWithPropagation", c.deleteWithPropagation},
		{"LeaderElection", c.leaderElection},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		if err := step.run(ctx); err != nil {
			fmt.Printf("FAIL %s: %s\n", step.name, strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Println("ok", step.name)
		}
		cancel()
	}
}

type calls struct {
	writer, reader kubernetes.Interface
	dynamic        dynamic.Interface
	metadata       metadata.Interface
	seen           *traffic
}

func (c *calls) makeNamespace(ctx context.Context) error {
	made := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err := c.writer.CoreV1().Namespaces().Create(ctx, made, metav1.CreateOptions{})
	return err
}

// Informers with client-go's own defaults stream their first list, speak protobuf, follow another client's writes, and
// go on where the connection broke.
func (c *calls) informers(ctx context.Context) error {
	for i := range 20 {
		if err := c.seed(ctx, fmt.Sprintf("seed-%02d", i)); err != nil {
			return err
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c.reader, 0, informers.WithNamespace(namespace))
	core := factory.Core().V1()
	configMaps := core.ConfigMaps()
	// Asking for an informer is what makes the factory start it.
	_, _, _ = configMaps.Informer(), core.Secrets().Informer(), core.Pods().Informer()
	ctx, cancel := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("%v did not sync", kind)
		}
	}
	if got := c.seen.count("sendInitialEvents=true"); got < 3 {
		return fmt.Errorf("%d of 3 informers streamed their first list", got)
	}
	for _, resource := range []string{"secrets", "pods"} {
		lists, watches := c.served(ctx, resource, "LIST"), c.served(ctx, resource, "WATCH")
		if lists != 0 || watches == 0 {
			return fmt.Errorf("the server saw %d lists and %d watches of %s", lists, watches, resource)
		}
	}
	if strange := c.seen.strange("application/vnd.kubernetes.protobuf"); strange != "" {
		return fmt.Errorf("an answer was %s", strange)
	}
	agree := func() error {
		return wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			list, err := c.writer.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err
			}
			cached, err := configMaps.Lister().List(labels.Everything())
			return reflect.DeepEqual(versions(list.Items), versionsOf(cached)), err
		})
	}
	if err := agree(); err != nil {
		return fmt.Errorf("after the first list: %w", err)
	}
	change := func(round string) error {
		if err := c.seed(ctx, "made-"+round); err != nil {
			return err
		}
		patch := []byte(`{"data":{"round":"` + round + `"}}`)
		client := c.writer.CoreV1().ConfigMaps(namespace)
		if _, err := client.Patch(ctx, "seed-01", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		return client.Delete(ctx, "made-"+round, metav1.DeleteOptions{})
	}
	if err := change("one"); err != nil {
		return err
	}
	if err := agree(); err != nil {
		return fmt.Errorf("after writes: %w", err)
	}
	c.seen.hangUp()
	if err := change("two"); err != nil {
		return err
	}
	if err := agree(); err != nil {
		return fmt.Errorf("after the connection broke: %w", err)
	}
	return nil
}

// How often the server says that it answered this of a namespace.
func (c *calls) served(ctx context.Context, resource, verb string) int {
	text, _ := c.writer.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	labels := fmt.Sprintf(`resource="%s",scope="namespace",subresource="",verb="%s"`, resource, verb)
	sum := 0
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "apiserver_request_total{") && strings.Contains(line, labels) {
			count, _ := strconv.Atoi(line[strings.LastIndex(line, " ")+1:])
			sum += count
		}
	}
	return sum
}

func (c *calls) dynamicInformer(ctx context.Context) error {
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(c.dynamic, 0, namespace, nil)
	return c.follows(ctx, factory.ForResource(maps), factory.Start, factory.Shutdown)
}

func (c *calls) metadataInformer(ctx context.Context) error {
	factory := metadatainformer.NewFilteredSharedInformerFactory(c.metadata, 0, namespace, nil)
	return c.follows(ctx, factory.ForResource(maps), factory.Start, factory.Shutdown)
}

// An informer sees what was there and what is made while it runs.
func (c *calls) follows(ctx context.Context, informer informers.GenericInformer, start func(<-chan struct{}), end func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer end()
	defer cancel()
	added := make(chan string, 1000)
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
		added <- object.(metav1.Object).GetName()
	}})
	if err != nil {
		return err
	}
	start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		return fmt.Errorf("it did not sync")
	}
	name := fmt.Sprintf("followed-%d", time.Now().UnixNano())
	if err := c.seed(ctx, name); err != nil {
		return err
	}
	missing := map[string]bool{"seed-00": true, name: true}
	for len(missing) > 0 {
		select {
		case name := <-added:
			delete(missing, name)
		case <-ctx.Done():
			return fmt.Errorf("never seen: %v", missing)
		}
	}
	return nil
}

// A watch gives what happens, each change once and in order.
func (c *calls) watch(ctx context.Context) error {
	client := c.writer.CoreV1().ConfigMaps(namespace)
	begin, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	follow := metav1.ListOptions{ResourceVersion: begin.ResourceVersion, LabelSelector: "watched", AllowWatchBookmarks: true}
	stream, err := c.reader.CoreV1().ConfigMaps(namespace).Watch(ctx, follow)
	if err != nil {
		return err
	}
	defer stream.Stop()
	var want []string
	note := func(event watch.EventType, object *corev1.ConfigMap, err error) error {
		if err == nil {
			want = append(want, string(event)+" "+object.Name+"@"+object.ResourceVersion)
		}
		return err
	}
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "w", Labels: map[string]string{"watched": "yes"}}}
	made, err = client.Create(ctx, made, metav1.CreateOptions{})
	if err := note(watch.Added, made, err); err != nil {
		return err
	}
	for _, value := range []string{"1", "2", "3"} {
		patch := []byte(`{"data":{"value":"` + value + `"}}`)
		changed, err := client.Patch(ctx, "w", types.MergePatchType, patch, metav1.PatchOptions{})
		if err := note(watch.Modified, changed, err); err != nil {
			return err
		}
	}
	// Out of what is watched: for the watch it is gone.
	patch := []byte(`{"metadata":{"labels":null}}`)
	changed, err := client.Patch(ctx, "w", types.MergePatchType, patch, metav1.PatchOptions{})
	if err := note(watch.Deleted, changed, err); err != nil {
		return err
	}
	var got []string
	for len(got) < len(want) {
		select {
		case event, open := <-stream.ResultChan():
			if !open {
				return fmt.Errorf("the watch ended after %v", got)
			}
			if object, ok := event.Object.(*corev1.ConfigMap); ok && event.Type != watch.Bookmark {
				got = append(got, string(event.Type)+" "+object.Name+"@"+object.ResourceVersion)
			}
		case <-ctx.Done():
			return fmt.Errorf("only %v", got)
		}
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%v is not %v", got, want)
	}
	return nil
}

func (c *calls) pager(ctx context.Context) error {
	pages, items := 0, 0
	p := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		pages++
		return c.writer.CoreV1().ConfigMaps(namespace).List(ctx, options)
	})
	p.PageSize = 5
	err := p.EachListItem(ctx, metav1.ListOptions{LabelSelector: "seeded"}, func(runtime.Object) error {
		items++
		return nil
	})
	if err == nil && (items < 20 || pages != (items+4)/5) {
		err = fmt.Errorf("%d items in %d pages", items, pages)
	}
	return err
}

func (c *calls) patchJSON(ctx context.Context) error {
	return c.patch(ctx, types.JSONPatchType, `[{"op":"add","path":"/data","value":{"by":"json"}}]`, "json")
}

func (c *calls) patchMerge(ctx context.Context) error {
	return c.patch(ctx, types.MergePatchType, `{"data":{"by":"merge"}}`, "merge")
}

func (c *calls) patchStrategic(ctx context.Context) error {
	return c.patch(ctx, types.StrategicMergePatchType, `{"data":{"$patch":"replace","by":"strategic"}}`, "strategic")
}

func (c *calls) patch(ctx context.Context, kind types.PatchType, body, want string) error {
	client := c.writer.CoreV1().ConfigMaps(namespace)
	got, err := client.Patch(ctx, "seed-02", kind, []byte(body), metav1.PatchOptions{})
	if err == nil && got.Data["by"] != want {
		err = fmt.Errorf("data is %v", got.Data)
	}
	return err
}

func (c *calls) apply(ctx context.Context) error {
	client := c.writer.CoreV1().ConfigMaps(namespace)
	wanted := func(value string) *applycorev1.ConfigMapApplyConfiguration {
		return applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"key": value})
	}
	if _, err := client.Apply(ctx, wanted("1"), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	_, err := client.Apply(ctx, wanted("2"), metav1.ApplyOptions{FieldManager: "two"})
	if !apierrors.IsConflict(err) || !apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
		return fmt.Errorf("no conflict: %v", err)
	}
	forced, err := client.Apply(ctx, wanted("2"), metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil {
		return err
	}
	own, err := applycorev1.ExtractConfigMap(forced, "two")
	if err == nil && own.Data["key"] != "2" {
		err = fmt.Errorf("two owns %v", own.Data)
	}
	return err
}

func (c *calls) typedErrors(ctx context.Context) error {
	client := c.writer.CoreV1().ConfigMaps(namespace)
	_, missing := client.Get(ctx, "none", metav1.GetOptions{})
	exists := c.seed(ctx, "seed-03")
	invalid := c.seed(ctx, "Not-A-Name")
	stale, err := client.Get(ctx, "seed-03", metav1.GetOptions{})
	if err != nil {
		return err
	}
	stale.ResourceVersion = "1"
	_, conflict := client.Update(ctx, stale, metav1.UpdateOptions{})
	_, gone := client.List(ctx, metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	for _, one := range []struct {
		name string
		err  error
		is   func(error) bool
	}{
		{"IsNotFound", missing, apierrors.IsNotFound},
		{"IsAlreadyExists", exists, apierrors.IsAlreadyExists},
		{"IsInvalid", invalid, apierrors.IsInvalid},
		{"IsConflict", conflict, apierrors.IsConflict},
		{"IsResourceExpired", gone, apierrors.IsResourceExpired},
	} {
		if !one.is(one.err) {
			return fmt.Errorf("%s is false of: %v", one.name, one.err)
		}
	}
	return nil
}

func (c *calls) discovery(context.Context) error {
	cached := memory.NewMemCacheClient(c.writer.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"})
	if err != nil {
		return err
	}
	if mapping.Resource.Resource != "deployments" || mapping.Resource.Version != "v1" {
		return fmt.Errorf("mapped to %v", mapping.Resource)
	}
	// client-go asks for it in protobuf.
	document, err := c.writer.Discovery().OpenAPISchema()
	if err != nil {
		return err
	}
	if document.Info.Title != "Kubernetes" || len(document.Paths.Path) == 0 || len(document.Definitions.AdditionalProperties) == 0 {
		return fmt.Errorf("the OpenAPI document of %q has %d paths and %d definitions", document.Info.Title,
			len(document.Paths.Path), len(document.Definitions.AdditionalProperties))
	}
	version, err := c.writer.Discovery().ServerVersion()
	if err == nil && (version.Major != "1" || version.Minor != "37") {
		err = fmt.Errorf("version %v", version)
	}
	return err
}

// To scale is to change the object, so its generation grows.
func (c *calls) scale(ctx context.Context) error {
	one := appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "scaled"},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "scaled"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "scaled"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/main:1"}}},
			},
		},
	}
	deployments := c.writer.AppsV1().Deployments(namespace)
	if _, err := deployments.Create(ctx, &one, metav1.CreateOptions{}); err != nil {
		return err
	}
	got, err := deployments.GetScale(ctx, "scaled", metav1.GetOptions{})
	if err != nil {
		return err
	}
	got.Spec.Replicas = 2
	if got, err = deployments.UpdateScale(ctx, "scaled", got, metav1.UpdateOptions{}); err != nil {
		return err
	}
	scale := autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 3}}
	patch, err := json.Marshal(map[string]any{"spec": scale.Spec})
	if err != nil {
		return err
	}
	_, err = deployments.Patch(ctx, "scaled", types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	if err != nil {
		return err
	}
	stored, err := deployments.Get(ctx, "scaled", metav1.GetOptions{})
	if err == nil && (got.Spec.Replicas != 2 || *stored.Spec.Replicas != 3 || stored.Generation != 3) {
		err = fmt.Errorf("%d, then %d replicas, generation %d", got.Spec.Replicas, *stored.Spec.Replicas, stored.Generation)
	}
	return err
}

func (c *calls) evict(ctx context.Context) error {
	pods := c.writer.CoreV1().Pods(namespace)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "evicted"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/main:1"}}},
	}
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := pods.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "evicted"}}); err != nil {
		return err
	}
	if _, err := pods.Get(ctx, "evicted", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("it is still there: %v", err)
	}
	return nil
}

// What is owned goes with its owner, before or after it, or stays without one.
func (c *calls) deleteWithPropagation(ctx context.Context) error {
	client := c.writer.CoreV1().ConfigMaps(namespace)
	for _, policy := range []metav1.DeletionPropagation{
		metav1.DeletePropagationForeground, metav1.DeletePropagationBackground, metav1.DeletePropagationOrphan,
	} {
		name := strings.ToLower(string(policy))
		made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name + "-owner"}}
		owner, err := client.Create(ctx, made, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		reference := *metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("ConfigMap"))
		owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name + "-owned"}}
		owned.OwnerReferences = []metav1.OwnerReference{reference}
		if _, err := client.Create(ctx, owned, metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := client.Delete(ctx, owner.Name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
			return err
		}
		gone := func(name string) error {
			return wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(ctx context.Context) (bool, error) {
				_, err := client.Get(ctx, name, metav1.GetOptions{})
				return apierrors.IsNotFound(err), nil
			})
		}
		if err := gone(owner.Name); err != nil {
			return fmt.Errorf("%s: the owner stays: %w", policy, err)
		}
		if policy != metav1.DeletePropagationOrphan {
			if err := gone(owned.Name); err != nil {
				return fmt.Errorf("%s: the owned stays: %w", policy, err)
			}
		} else if left, err := client.Get(ctx, owned.Name, metav1.GetOptions{}); err != nil || len(left.OwnerReferences) > 0 {
			return fmt.Errorf("%s: %v, owned by %v", policy, err, left.OwnerReferences)
		}
	}
	return nil
}

// Two candidates: one leads, and the other follows it at once when it lets go.
func (c *calls) leaderElection(ctx context.Context) error {
	elected := make(chan string, 2)
	candidate := func(ctx context.Context, name string) {
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "leader", Namespace: namespace},
			Client:     c.writer.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { elected <- name },
				OnStoppedLeading: func() {},
			},
		})
	}
	leader := func(want string) error {
		select {
		case got := <-elected:
			if got != want {
				return fmt.Errorf("%s leads, not %s", got, want)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s never led", want)
		}
	}
	var running sync.WaitGroup
	defer running.Wait()
	first, letGo := context.WithCancel(ctx)
	defer letGo()
	running.Go(func() { candidate(first, "first") })
	if err := leader("first"); err != nil {
		return err
	}
	second, end := context.WithCancel(ctx)
	defer end()
	running.Go(func() { candidate(second, "second") })
	letGo()
	return leader("second")
}

func (c *calls) seed(ctx context.Context, name string) error {
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"seeded": "yes"}}}
	_, err := c.writer.CoreV1().ConfigMaps(namespace).Create(ctx, made, metav1.CreateOptions{})
	return err
}

func versions(list []corev1.ConfigMap) []string {
	pointers := make([]*corev1.ConfigMap, len(list))
	for i := range list {
		pointers[i] = &list[i]
	}
	return versionsOf(pointers)
}

func versionsOf(list []*corev1.ConfigMap) []string {
	out := make([]string, len(list))
	for i, one := range list {
		out[i] = one.Name + "@" + one.ResourceVersion
	}
	sort.Strings(out)
	return out
}

// What went over the wire.
type traffic struct {
	mutex       sync.Mutex
	queries     []string
	types       []string
	connections []net.Conn
}

func (t *traffic) dial(ctx context.Context, network, address string) (net.Conn, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		t.connections = append(t.connections, connection)
	}
	return connection, err
}

func (t *traffic) hangUp() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, connection := range t.connections {
		_ = connection.Close()
	}
	t.connections = nil
}

func (t *traffic) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil {
			t.mutex.Lock()
			defer t.mutex.Unlock()
			t.queries = append(t.queries, request.URL.RawQuery)
			t.types = append(t.types, response.Header.Get("Content-Type"))
		}
		return response, err
	})
}

func (t *traffic) count(part string) int {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	count := 0
	for _, query := range t.queries {
		if strings.Contains(query, part) {
			count++
		}
	}
	return count
}

// The first content type that does not begin like this.
func (t *traffic) strange(prefix string) string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, one := range t.types {
		if !strings.HasPrefix(one, prefix) {
			return one
		}
	}
	return ""
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
