"""Sentences of which prompts are put together, in the languages that people write them in."""

ENGLISH = """\
The quarterly report shows that revenue grew in every region except the north.
Please summarise the following meeting notes in three short bullet points.
What is the difference between a mutex and a semaphore, and when would you use either?
I am writing to complain about an order that arrived two weeks late and partly broken.
Translate the customer's question, but keep the product names as they are.
Our gateway spreads requests over several regions, and leaves alone those that are ill.
She opened the window, listened for a while, and then decided not to answer the letter.
The patient reports mild headaches since Tuesday and takes no regular medication.
Explain like I am five why the sky is blue but the sunset is red.
Under clause 7.2 either party may terminate the agreement with thirty days' notice.
Rewrite this paragraph so that it sounds friendly, and no longer than sixty words.
The committee postponed its decision until an independent review has been published.
Which of these three headlines would you click on, and what would you expect to read?
Add a unit test for the case in which the list is empty or holds a single element.
Between 1998 and 2014 the population of the town fell from 48,200 to 31,750.
You are a helpful assistant. Answer only from the documents below; if they do not say, say so.
The flight leaves at 6:40 a.m. from terminal B, and boarding closes twenty minutes earlier.
His argument is elegant, yet it rests on an assumption that nobody has ever tested.
Give me a recipe for lentil soup with what I have: carrots, onions, cumin, and half a lemon.
Could you check whether this email contains anything that we should not send to a client?
""".splitlines()

GERMAN = """\
Bitte fassen Sie das folgende Protokoll in drei kurzen Stichpunkten zusammen.
Die Datenschutzgrundverordnung verlangt, dass Betroffene rechtzeitig benachrichtigt werden.
Warum ist der Himmel blau, und weshalb färbt er sich bei Sonnenuntergang rötlich?
Im dritten Quartal stieg der Umsatz in allen Regionen außer im Norden deutlich an.
Der Antragsteller hat die erforderlichen Unterlagen bislang nicht vollständig eingereicht.
Schreibe eine höfliche Absage an einen Bewerber, der uns trotzdem gut gefallen hat.
Die Verbindung zur Datenbank wurde unerwartet getrennt; der Vorgang wird wiederholt.
Übersetze den Text ins Englische, aber lasse die Produktnamen unverändert stehen.
Nach längerem Zögern öffnete sie das Fenster und hörte den Kindern auf der Straße zu.
Gemäß Paragraph 12 beträgt die Kündigungsfrist drei Monate zum Ende des Kalenderjahres.
Welche Wechselwirkungen sind bei gleichzeitiger Einnahme dieser Arzneimittel bekannt?
Unsere Lieferzeiten verlängern sich derzeit um etwa fünf bis sieben Werktage.
Erkläre mir den Unterschied zwischen Brutto- und Nettogehalt anhand eines Beispiels.
Die Geschwindigkeitsbegrenzung gilt nur werktags zwischen sechs und zwanzig Uhr.
Könntest du prüfen, ob diese Rechnung alle gesetzlich vorgeschriebenen Angaben enthält?
Zwischen 1998 und 2014 sank die Einwohnerzahl der Stadt von 48.200 auf 31.750.
""".splitlines()

CHINESE = """\
请用三个简短的要点总结以下会议记录。
为什么天空是蓝色的，而日落时却变成红色？
本季度除北部地区以外，各地区的收入都有明显增长。
如果文档中没有相关信息，请直接说明，不要猜测答案。
数据库连接意外中断，系统将在三十秒后自动重试。
她打开窗户，听了一会儿街上的声音，最后决定不回那封信。
根据合同第七条，任何一方均可提前三十天书面通知终止协议。
请把下面这段话改写得更加友好，字数不要超过六十个。
患者自周二起出现轻微头痛，目前没有长期服用任何药物。
请解释互斥锁和信号量之间的区别，并分别举一个例子。
我们的网关会把请求分配到多个区域，并自动避开出现故障的实例。
从一九九八年到二零一四年，该市人口从四万八千二百人减少到三万一千七百五十人。
航班将于早上六点四十分从二号航站楼起飞，请提前两个小时到达机场。
能不能帮我检查一下这封邮件里有没有不应该发给客户的内容？
""".splitlines()

CODE = """\
def moving_average(values: list[float], size: int) -> list[float]:
    return [sum(values[i : i + size]) / size for i in range(len(values) - size + 1)]
for (let i = 0; i < items.length; i += 1) { total += items[i].price * items[i].count; }
SELECT c.name, SUM(o.amount) AS total FROM customers c JOIN orders o ON o.customer_id = c.id
 WHERE o.created_at >= '2026-01-01' GROUP BY c.name HAVING SUM(o.amount) > 1000 ORDER BY total DESC;
    if err := json.NewDecoder(r.Body).Decode(&payload); err != nil { return fmt.Errorf("decode: %w", err) }
class Window:
    __slots__ = ("_buckets", "_newest", "_total")
        self._buckets = [0] * seconds  # one for each second
{"model": "gpt-4o", "temperature": 0.2, "messages": [{"role": "user", "content": "Hi"}]}
const server = http.createServer((request, response) => response.end("ok\\n"));
    raise ValueError(f"expected {expected!r}, got {actual!r} at line {number}")
fn main() -> Result<(), Box<dyn Error>> { let text = fs::read_to_string("input.txt")?; Ok(()) }
<div class="card"><h2>{{ title }}</h2><p v-if="note">{{ note }}</p></div>
git log --oneline --since="2 weeks ago" | grep -v Merge | head -20
#define MAX(a, b) ((a) > (b) ? (a) : (b))
""".splitlines()

LANGUAGES = {"English": ENGLISH, "German": GERMAN, "Chinese": CHINESE, "code": CODE}
