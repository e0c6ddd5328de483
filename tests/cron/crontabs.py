"""
Crontabs as they are met on hosts: of users, of packages, of machine learning teams, of people in a hurry.

Those whose name begins with `system/` have a column that says who runs a job.
"""

# ruff: noqa: E501  (crontabs have lines as long as they have)
from __future__ import annotations

_PLAIN = {
    "one": "10 3 * * * /opt/churn/score.py\n",
    "empty": "",
    "only a newline": "\n",
    "only comments": "# m h  dom mon dow   command\n#\n",
    "as crontab -e begins": """\
# Edit this file to introduce tasks to be run by cron.
#
# Each task to run has to be defined through a single line
# indicating with different fields when the task will be run
# and what command to run for the task
#
# For example, you can run a backup of all your user accounts
# at 5 a.m every week with:
# 0 5 * * 1 tar -zcf /var/backups/home.tgz /home/
#
# m h  dom mon dow   command
0 5 * * 1 tar -zcf /var/backups/home.tgz /home/
""",
    "no newline in the end": "*/10 * * * * /usr/local/bin/heartbeat",
    "windows": "0 1 * * * /opt/jobs/import.sh\r\n# done\r\n\r\n5 1 * * * cd /opt && ./export.sh > out.log\r\n",
    "latin": "0 1 * * * /opt/jobs/f\udce9te.sh # caf\udce9\n",
    "utf-8": "# Résumé des ventes\n0 7 * * 1-5 /opt/ventes/résumé.py --région 'Île de France'\n",
    "tabs": "0\t4\t*\t*\t*\t/opt/jobs/tabs.sh\targument\t\n\t5 4 * * *\t\t/opt/jobs/more.sh\n",
    "much space": "   15   2    1,15  *   *      /opt/jobs/twice.sh   --all   \n\n\n   \n",
    "nicknames": """\
@reboot /home/app/bin/start-worker --daemon
@yearly /opt/jobs/archive.sh
@annually /opt/jobs/archive.sh --again
@monthly /opt/jobs/invoice.py
@weekly /opt/jobs/retrain.sh
@daily /opt/jobs/score.sh
@midnight /opt/jobs/roll.sh
@hourly /opt/jobs/refresh.sh
""",
    "environment": """\
SHELL=/bin/bash
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin
MAILTO="ml-team@example.com"
HOME = /home/ml
PYTHONPATH='/opt/ml/lib'
EMPTY=
30 2 * * * python -m ml.train --date $(date +\\%F)
""",
    "zones": """\
0 6 * * * /opt/jobs/in-the-zone-of-the-host.sh
CRON_TZ=America/New_York
0 6 * * 1-5 /opt/jobs/open.sh
CRON_TZ=Asia/Tokyo
0 6 * * 1-5 /opt/jobs/open.sh --market tokyo
""",
    "dates": """\
0 1 * * * /usr/bin/mysqldump shop > /backup/shop-$(date +\\%Y\\%m\\%d).sql
5 1 * * * /opt/report.sh --day "`date -d yesterday +\\%F`" 2>&1 | tee /var/log/report-`date +\\%F`.log
10 1 * * * touch /tmp/stamp-$(date +"\\%s")
""",
    "stdin": """\
0 9 * * 1 mail -s "Standup" team@example.com%Good morning,%%the standup is at 10.%
0 10 * * * cat > /tmp/letter%100\\% of it\\\\%is here
0 11 * * * /usr/bin/psql shop%select count(*) from orders;
""",
    "locks": """\
*/5 * * * * flock -n /var/lock/sync.lock /opt/sync/run.sh
*/5 * * * * /usr/bin/flock -w 10 /tmp/score.lock -c 'cd /opt/score && ./score.sh'
* * * * * flock -xn /tmp/queue.lock php /var/www/artisan queue:work --stop-when-empty
""",
    "nice": """\
0 3 * * * nice -n 19 ionice -c 3 /opt/jobs/heavy.sh
15 3 * * * ionice -c2 -n7 nice -n10 python3 /opt/jobs/index.py --full
20 3 * * * chrt --idle 0 /opt/jobs/idle.sh
25 3 * * * timeout 2h /opt/jobs/bounded.sh
26 3 * * * timeout -k 30 1h python3 -u /opt/jobs/hard.py
""",
    "folders": """\
*/15 * * * * cd /srv/app && ./manage.py clearsessions
0 * * * * cd /srv/app && /srv/app/venv/bin/python manage.py send_mail >> /var/log/app/mail.log 2>&1
0 0 * * * (cd /srv/data; find . -name '*.tmp' -mtime +7 -delete)
""",
    "redirects": """\
* * * * * /opt/a.sh > /dev/null 2>&1
* * * * * /opt/b.sh >/dev/null
* * * * * /opt/c.sh >> /var/log/c.log 2>> /var/log/c.err
* * * * * /opt/d.sh &> /var/log/d.log
* * * * * /opt/e.sh < /etc/e.conf
* * * * * /opt/f.sh 2>&1 | logger -t f
* * * * * >/dev/null 2>&1 /opt/g.sh
* * * * * /opt/h.sh>/tmp/h 2>&1
* * * * * /opt/i.sh 2>&1 >/dev/null
* * * * * /opt/j.sh >&2
* * * * * /opt/k.sh <<<word
""",
    "pipes": """\
0 4 * * * pg_dump shop | gzip -9 > /backup/shop.sql.gz
0 5 * * * /usr/bin/curl -fsS https://example.com/feed.json | jq -c '.items[]' | /opt/load.py
0 6 * * * df -h / | awk 'NR==2 {if ($5+0 > 90) print "disk is at " $5}'
""",
    "conditions": """\
0 * * * * [ -x /opt/maybe.sh ] && /opt/maybe.sh
5 * * * * test -f /tmp/go || exit 0; /opt/go.sh
10 * * * * if [ "$(date +\\%u)" = 7 ]; then /opt/sunday.sh; else /opt/weekday.sh; fi
15 * * * * for f in /in/*.csv; do /opt/load.sh "$f"; done
20 * * * * ! /opt/probe.sh
25 * * * * { /opt/one.sh; /opt/two.sh; } >> /var/log/both.log 2>&1
""",
    "quotes": """\
0 1 * * * /opt/q.py --name "O'Brien" --when 'every day'
0 2 * * * /opt/q.py --json '{"a": [1, 2], "b": "it'\\''s"}'
0 3 * * * /opt/q.py --path "$HOME/data/in" --glob *.csv
0 4 * * * bash -c 'echo "one"; echo "two"'
0 5 * * * /bin/sh -c 'a | b'
0 6 * * * /bin/sh -c 'true'
0 7 * * * "/opt/with space/run.sh" now
0 8 * * * /opt/q.py --tab 'a	b' --empty '' ""
0 9 * * * echo it's not closed
0 10 * * * /opt/q.py back\\slash two\\ words \\"quoted\\"
""",
    "variables before": """\
0 2 * * * DJANGO_SETTINGS_MODULE=shop.settings /srv/shop/venv/bin/python /srv/shop/manage.py nightly
0 3 * * * TZ=UTC LANG=C /opt/jobs/utc.sh
0 4 * * * env -i PATH=/usr/bin HOME=/tmp /opt/jobs/bare.sh
0 5 * * * . /etc/profile; /opt/jobs/with-profile.sh
0 6 * * * source ~/.bashrc && conda activate ml && python train.py
0 7 * * * export A=1; /opt/jobs/with-a.sh
""",
    "pythons": """\
0 1 * * * /usr/bin/python3 /opt/ml/churn.py
0 2 * * * python3 -m ml.forecast.train --horizon 14
0 3 * * * /opt/ml/.venv/bin/python -W ignore -u /opt/ml/fraud.py --threshold=0.9
0 4 * * * python -c "import ml; ml.run()"
0 5 * * * poetry run python score.py
0 6 * * * /opt/conda/bin/conda run -n ml python /opt/ml/uplift.py
0 7 * * * uv run /opt/ml/pricing.py
0 8 * * * papermill /nb/in.ipynb /nb/out.ipynb -p day $(date +\\%F)
""",
    "other languages": """\
0 1 * * * /usr/bin/Rscript --vanilla /opt/r/forecast.R
0 2 * * * java -Xmx2g -jar /opt/java/etl.jar --full
0 3 * * * node /opt/js/sync.mjs
0 4 * * * /usr/bin/perl -w /opt/pl/rotate.pl
0 5 * * * php -q /var/www/cron.php
0 6 * * * ruby /opt/rb/mail.rb
0 7 * * * /bin/bash /opt/sh/job.sh
0 8 * * * sh -x /opt/sh/trace.sh
0 9 * * * julia --project=/opt/jl /opt/jl/solve.jl
""",
    "containers": """\
0 1 * * * docker exec -t app /app/bin/rake report:daily
0 2 * * * docker run --rm -v /data:/data registry.example.com/ml/score:1.4 --day yesterday
0 3 * * * /usr/bin/docker compose -f /srv/compose.yml run --rm worker python jobs.py
0 4 * * * kubectl --context prod create job --from=cronjob/score score-$(date +\\%s)
""",
    "web hosting": """\
*/5 * * * * wget -q -O - https://example.com/wp-cron.php?doing_wp_cron >/dev/null 2>&1
0 * * * * /usr/local/bin/php -q /home/user/public_html/cron.php > /dev/null
*/30 * * * * curl -s "https://example.com/cron?key=$KEY&full=1" -o /dev/null
17 3 * * * ~/bin/cleanup
""",
    "laravel": "* * * * * cd /var/www/app && php artisan schedule:run >> /dev/null 2>&1\n",
    "rails by whenever": """\

# Begin Whenever generated tasks for: /srv/shop/config/schedule.rb at: 2026-01-01 00:00:00 +0000
0 0 * * * /bin/bash -l -c 'cd /srv/shop && RAILS_ENV=production bundle exec rake carts:expire --silent >> log/cron.log 2>&1'

0 12,18 * * 1-5 /bin/bash -l -c 'cd /srv/shop && bin/rails runner -e production '\\''Report.send!'\\'' >> log/cron.log 2>&1'

# End Whenever generated tasks for: /srv/shop/config/schedule.rb at: 2026-01-01 00:00:00 +0000
""",
    "acme": '12 0 * * * "/home/user/.acme.sh"/acme.sh --cron --home "/home/user/.acme.sh" > /dev/null\n',
    "random delay": """\
0 4 * * * sleep $((RANDOM \\% 3600)); /opt/jobs/spread.sh
0 5 * * * perl -e 'sleep int(rand(600))' && /opt/certbot renew -q
""",
    "background": """\
@reboot nohup /opt/daemon/run.sh &
@reboot /usr/bin/screen -dmS irc irssi
@reboot sleep 60 && /usr/bin/autossh -M 0 -N tunnel &
""",
    "monitored": """\
*/5 * * * * /opt/backup.sh && curl -fsS -m 10 --retry 5 -o /dev/null https://hc.example.com/ping/uuid
0 2 * * * cronitor exec abc123 /opt/nightly.sh
0 3 * * * chronic /opt/quiet.sh
0 4 * * * /usr/bin/systemd-cat -t nightly /opt/nightly2.sh
""",
    "observed already": """\
10 3 * * * batchobs run --model churn --schedule '10 3 * * *' --owner growth -- /opt/churn/score.py
0 4 * * * /opt/obs/bin/batchobs run -- /bin/sh -c 'cd /opt && ./a.sh | ./b.sh'
0 5 * * * batchobs run --overlap skip --timeout 2h --instrument -- python /opt/x.py
0 6 * * * batchobs  run --model 'odd name' -- /opt/y.py
0 7 * * * /opt/z.py
""",
    "half observed": """\
0 1 * * * batchobs run --model a -- /opt/a.py
0 2 * * * /opt/a.py
0 3 * * * /opt/a.py --again
""",
    "mistakes": """\
61 * * * * /opt/never.sh
* * * * /opt/too-few.sh
@sometimes /opt/when.sh
0 0 31 2 * /opt/never-comes.sh
0/5 * * * * /opt/quartz.sh
0 0 1 * ? /opt/quartz2.sh
*/5 * * * *
not a line of a crontab
0 1 * * * /opt/right.sh
""",
    "percent only": "0 0 * * * %\n0 1 * * * %%\n0 2 * * * /bin/cat%\n0 3 * * * \\%\n0 4 * * * /opt/x \\\\%y\n",
    "csh": "SHELL=/bin/csh\n0 0 * * * source ~/.login; /opt/run\n",
    "fish": "SHELL=/usr/bin/fish\n0 0 * * * /opt/run; and /opt/then\n",
    "shells": """\
0 0 * * * /opt/a.sh; true
SHELL=/bin/bash
1 0 * * * shopt -s nullglob; for f in *.x; do echo $f; done
SHELL=/usr/bin/zsh
2 0 * * * print -l *(.)
SHELL=
3 0 * * * /opt/d.sh; true
""",
    "names and steps": """\
0 22 * * mon-fri /opt/a.sh
0 22 * * SUN /opt/b.sh
0 0 1 jan,jul * /opt/c.sh
0-30/10 8-18/2 * * 1-5 /opt/d.sh
*/20 */6 */2 */3 */2 /opt/e.sh
5,10,15-20,40-59/5 0 * * * /opt/f.sh
0 0 * * 7 /opt/g.sh
0 0 * * 0-7 /opt/h.sh
0 0 13 * 5 /opt/friday-13.sh
""",
    "comments after": "0 1 * * * /opt/a.sh # not a comment for cron\n0 2 * * * /opt/b.sh --tag=#1\n",
    "minus": "-*/15 * * * * /opt/quiet.sh\n",
    "long": f"0 1 * * * /opt/long.sh {'x' * 900}\n0 2 * * * /opt/longer.sh {'y' * 1200}\n",
    "flights": """\
PATH=/opt/flights/.venv/bin:/usr/bin:/bin
MAILTO=data@example.com
# The delay model scores yesterday's flights when the airports have reported.
15 6 * * * cd /opt/flights && python -m flights.score --day "$(date -d yesterday +\\%F)"
0 4 * * 0 nice python -m flights.train --months 24
""",
    "backups": """\
0 1 * * 1-6 rsync -a --delete /srv/ backup@host:/srv/ >>/var/log/rsync.log 2>&1
0 1 * * 7 tar czf - /srv | ssh backup@host "cat > /srv-$(date +\\%V).tgz"
30 1 * * * find /backup -type f -mtime +30 -exec rm {} \\;
0 2 * * * restic -r s3:s3.example.com/b backup /home --exclude-caches || echo "backup failed" | mail -s fail root
""",
    "arithmetic": "0 3 * * 0 [ $(expr $(date +\\%W) \\% 2) -eq 1 ] && /opt/fortnightly.sh\n",
    "subshells": '0 1 * * * (/opt/a.sh; /opt/b.sh) | mail -s "$(hostname)" root\n0 2 * * * \\ls\n',
    "assignment only": "0 1 * * * X=1\n",
    "equals in the first field": 'a=b\nC = d e f\n"quoted name"=x\n0 1 * * * /opt/x\n',
}

_SYSTEM = {
    "etc": """\
# /etc/crontab: system-wide crontab
# Unlike any other crontab you don't have to run the `crontab'
# command to install the new version when you edit this file
# and files in /etc/cron.d. These files also have username fields,
# that none of the other crontabs do.

SHELL=/bin/sh
# You can also override PATH, but by default, newer versions inherit it from the environment
#PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

# Example of job definition:
# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# *  *  *  *  *  user-name command to be executed
17 *	* * *	root	cd / && run-parts --report /etc/cron.hourly
25 6	* * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
47 6	* * 7	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6	1 * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }
#
""",
    "php": """\
# Look for and purge old sessions every 30 minutes
09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi
""",
    "sysstat": """\
PATH=/usr/lib/sysstat:/usr/sbin:/usr/bin:/sbin:/bin
5-55/10 * * * * root command -v debian-sa1 > /dev/null && debian-sa1 1 1
59 23 * * * root command -v debian-sa1 > /dev/null && debian-sa1 60 2
""",
    "e2scrub": """\
30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron
10 3 * * * root test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r
""",
    "certbot": """\
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && perl -e 'sleep int(rand(43200))' && certbot -q renew
""",
    "anacron": "30 7-23 * * *   root\t[ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then /usr/sbin/invoke-rc.d anacron start >/dev/null; fi\n",
    "munin": """\
MAILTO=root
*/5 * * * *     munin if [ -x /usr/bin/munin-cron ]; then /usr/bin/munin-cron; fi
14 10 * * *     munin if [ -x /usr/share/munin/munin-limits ]; then /usr/share/munin/munin-limits --force --contact nagios --contact old-nagios; fi
""",
    "service accounts": """\
MAILTO=""
0 2 * * * ml	/opt/ml/bin/train --all
@daily www-data php /var/www/cron.php
*/5 * * * * "odd user" /opt/x.sh
0 3 * * * nobody
0 4 * * * ml sudo -u postgres /usr/bin/vacuumdb --all --quiet
""",
    "popularity": "33 19 * * *   root    test -x /etc/cron.daily/popularity-contest && /etc/cron.daily/popularity-contest --crond\n",
    "raid": "57 0 * * 0 root if [ -x /usr/share/mdadm/checkarray ] && [ $(date +\\%d) -le 7 ]; then /usr/share/mdadm/checkarray --cron --all --idle --quiet; fi\n",
}

CRONTABS = {**_PLAIN, **{f"system/{name}": text for name, text in _SYSTEM.items()}}
