# Two network devices: eth0 is a tap of the host's with two pairs of queues, eth1 is `--net user`. Read by
# guest_devices_init.
# modules: net/core/failover drivers/net/net_failover drivers/net/virtio_net
# programs: ping iperf3 ethtool
host=10.1.0.1 guest=10.1.0.2
ping=$(real ping)

work driver ls -d /sys/class/net/eth0/device/driver
same mac "$(cat /sys/class/net/eth0/address)" 52:54:00:00:00:01
ip link set lo up
work up ip link set eth0 up
ip addr add $guest/24 dev eth0

# What the driver agreed to.
ethtool -k eth0 > /tmp/features
for feature in rx-checksumming tx-checksumming scatter-gather tcp-segmentation-offload \
  tx-tcp-segmentation tx-tcp6-segmentation; do
  same "feature_$(echo "$feature" | tr - _)" "$(sed -n "s/^[[:space:]]*$feature: \([a-z]*\).*/\1/p" /tmp/features)" on
done
saw features "$(grep -c ': on' /tmp/features) on, rx-gro-hw $(sed -n 's/^rx-gro-hw: //p' /tmp/features)"
saw driver "$(ethtool -i eth0 | tr '\n' ' ')"
same queues "$(ethtool -l eth0 | awk '/^Combined:/ { last = $2 } END { print last }')" 2

work ping "$ping" -c 3 -i 0.2 -W 5 $host
saw ping "$(tail -n 1 /tmp/out)"
tell ping
await
check pinged "$([ "$reply" = ok ] || echo "$reply")"

# Towards the host, then from it, four connections each time so that they spread over the queues.
tell send
await
work send iperf3 -c $host -p "$reply" -t 2 -P 4
saw send "$(grep 'SUM.*sender' /tmp/out | tail -n 1)"
iperf3 -s -1 -p 5202 > /tmp/server 2>&1 &
usleep 500000
tell receive
await
check receive "$([ "${reply%% *}" = ok ] || echo "$reply")"
saw receive "$reply"
wait

# What a vCPU asks for comes back over its own queue.
tell reverse
await
work reverse taskset 2 iperf3 -c $host -p "$reply" -t 2 -P 2 -R
saw reverse "$(grep 'SUM.*receiver' /tmp/out | tail -n 1)"

# Both vCPUs had interrupts of queues of their own.
for queue in input.0 input.1 output.0 output.1; do
  line=$(grep "virtio[0-9]*-$queue" /proc/interrupts | head -n 1)
  count=$(echo "$line" | awk '{ print $2 + $3 }')
  name=$(echo $queue | tr . _)
  saw "irq_$name" "$(echo "$line" | awk '{ print $2, $3 }')"
  check "irq_$name" "$([ "${count:-0}" -gt 0 ] || echo "no interrupt: $line")"
done
cpus=$(grep -E 'virtio[0-9]*-(input|output)' /proc/interrupts | awk '{ a += $2; b += $3 } END { print (a > 0) + (b > 0) }')
same irq_cpus "$cpus" 2

# Larger frames, and without the host's help.
work mtu ip link set eth0 mtu 4000
work mtu_ping "$ping" -c 3 -i 0.2 -W 5 -M do -s 3900 $host
ip link set eth0 mtu 9001 2> /dev/null && why="9001 was taken" || why=
check mtu_limit "$why"
ip link set eth0 mtu 1500
work offloads_off ethtool -K eth0 tso off gso off tx off
work offloads_off_ping "$ping" -c 3 -i 0.2 -W 5 -s 1400 $host
work one_queue ethtool -L eth0 combined 1
work one_queue_ping "$ping" -c 3 -i 0.2 -W 5 $host
ethtool -L eth0 combined 2
ethtool -K eth0 tx on gso on tso on
work mac_change ip link set eth0 address 52:54:00:00:00:99
work mac_change_ping "$ping" -c 3 -i 0.2 -W 5 $host
work promisc ip link set eth0 promisc on
saw counters "$(grep eth0 /proc/net/dev)"
work unbind sh -c 'echo "$(basename "$(readlink /sys/class/net/eth0/device)")" > /sys/class/net/eth0/device/driver/unbind'
work bind sh -c 'for d in /sys/bus/virtio/devices/*; do
  [ "$(cat $d/device)" = 0x0001 ] && [ ! -e $d/driver ] && echo "${d##*/}" > /sys/bus/virtio/drivers/virtio_net/bind
done; [ -d /sys/class/net/eth0 ]'
ip link set eth0 up
ip addr add $guest/24 dev eth0
work rebound_ping "$ping" -c 3 -i 0.2 -W 5 $host
ip link set eth0 down

# The network of the host's user: an address by DHCP, a server on the host, a port of the host's.
cat > /tmp/leased <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/24" dev "$interface"
ip route add default via "$router" dev "$interface"
echo "$ip $router" > /tmp/lease
END
chmod +x /tmp/leased
ip link set eth1 up
work dhcp udhcpc -i eth1 -n -q -t 8 -s /tmp/leased
read -r address router < /tmp/lease
saw lease "$address by $router"
tell user
await
port=${reply% *} digest=${reply#* }
# Its input stays open: passt of 2023 lets a download stand still behind a half closed connection.
(printf 'GET / HTTP/1.0\r\n\r\n'; usleep 15000000) | nc "$router" "$port" > /tmp/fetched
same fetched "$(tail -c 1048576 /tmp/fetched | md5sum | cut -d ' ' -f 1)" "$digest"
tell user_send
await
work user_send iperf3 -c "$router" -p "$reply" -t 2
saw user_send "$(grep 'receiver' /tmp/out | tail -n 1)"
tell user_receive
await
work user_receive iperf3 -c "$router" -p "$reply" -t 2 -R
saw user_receive "$(grep 'receiver' /tmp/out | tail -n 1)"
(echo "hello from the guest" | nc -l -p 80 > /tmp/heard) &
usleep 300000
tell forward
await
check forward "$([ "$reply" = ok ] || echo "$reply")"
wait
same heard "$(cat /tmp/heard)" "hello from the host"
